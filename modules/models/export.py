"""Models as SavedModels that serve raw tf.Examples.

Every exported model has the signatures
  serving_default     examples: string [batch] -> the prediction: probabilities float32 [batch, classes or labels], with
                      label [batch] for a classifier, or prediction float32 [batch] for a regression
  transformed_labels  examples: string [batch] -> {evaluation_label(label): labels}, as the head has them, for TFMA
  logits              transformed features -> logits float32 [batch, outputs]
  hidden_states       transformed features -> {layer: [batch, ...]}, if hidden layers were requested
and a model card in assets.extra/, which TensorFlow Serving ignores.
"""

import os
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.models.autograph import needs_autograph
from stillhouse.modules.models.card import read_card, write_card
from stillhouse.modules.models.combination import combine
from stillhouse.modules.models.heads import HEADS, Head
from stillhouse.modules.models.layers import layer_output
from stillhouse.modules.models.teachers import HIDDEN_SIGNATURE, LOGITS_SIGNATURE, Teacher

LABELS_SIGNATURE = "transformed_labels"


def evaluation_label(label: str) -> str:
    """Returns the name of the class id for TFMA.

    It differs from the label's name, with which TFMA would slice by the class id instead of the raw column.
    """
    return f"transformed_{label}"


def class_names(transform: tft.TFTransformOutput, label: str) -> list[str] | None:
    """Returns the names of the classes by id, from the vocabulary named after the label; None if there is none."""
    if not transform.vocabulary_file_by_name(label):
        return None
    return [name.decode() for name in transform.vocabulary_by_name(label)]


def request_spec(transform: tft.TFTransformOutput, label: str) -> dict:
    """Returns the parsing spec of a serving request: the raw features without the label."""
    return {name: spec for name, spec in transform.raw_feature_spec().items() if name != label}


def save_with_signatures(
    module: tf.Module,
    outputs: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    inputs: dict[str, tf.TensorSpec],
    transform: tft.TFTransformOutput,
    label: str,
    path: str,
    card: dict,
    head: Head,
    autograph: bool,
    hidden_states: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]] | None = None,
) -> None:
    """Writes `module` as a SavedModel with the signatures above.

    Args:
      module: owner of all variables and resources of the functions below.
      outputs: maps transformed features to the network's outputs, [batch, outputs].
      inputs: the features that `outputs` takes.
      transform, label, path, card, head: as in `export_network`; only "head" and "class_names" are added to the card.
      autograph: whether the functions need AutoGraph.
      hidden_states: maps transformed features to hidden states.
    """
    transform_layer = transform.transform_features_layer()
    module.transform = _state_of(transform_layer)
    names = class_names(transform, label) if head.name == "classification" else None
    examples = tf.TensorSpec([None], tf.string, name="examples")

    @tf.function(input_signature=[examples], autograph=autograph)
    def serve(examples):
        features = transform_layer(tf.io.parse_example(examples, request_spec(transform, label)))
        logits = head.logits(outputs(features))
        answer = {head.prediction_key: head.prediction(logits)}
        if head.name == "classification":
            best = tf.argmax(logits, axis=-1)
            answer["label"] = tf.gather(tf.constant(names), best) if names else best
        return answer

    @tf.function(input_signature=[examples], autograph=autograph)
    def transformed_labels(examples):
        features = transform_layer(tf.io.parse_example(examples, transform.raw_feature_spec()))
        labels = features[label]
        return {evaluation_label(label): labels if head.label_rank == 2 else tf.reshape(labels, [-1])}

    @tf.function(input_signature=[inputs], autograph=autograph)
    def transformed_logits(features):
        return {"logits": outputs(features)}

    signatures = {
        "serving_default": serve,
        LABELS_SIGNATURE: transformed_labels,
        LOGITS_SIGNATURE: transformed_logits.get_concrete_function(),
    }
    if hidden_states:
        signatures[HIDDEN_SIGNATURE] = tf.function(
            hidden_states, input_signature=[inputs], autograph=autograph
        ).get_concrete_function()
    options = tf.saved_model.SaveOptions(experimental_debug_stripper=True)
    tf.saved_model.save(module, path, signatures=signatures, options=options)
    write_card(path, card | {"head": head.name, "class_names": names})


def _state_of(network: keras.Model) -> tf.train.Checkpoint:
    """Returns the variables and tables of a network, or of Transform's layer.

    One that is saved as such gets functions of Keras's own besides, which no signature calls: two thirds of the time
    of an export, and half of the bytes of a small model.
    """
    kept = (tf.Variable, tf.saved_model.experimental.TrackableResource)
    return tf.train.Checkpoint(
        variables=list(network.variables),
        trainable_variables=list(network.trainable_variables),
        state=[each for each in tf.train.TrackableView(network).descendants() if isinstance(each, kept)],
    )


def _with_states(network: keras.Model, layers: Sequence[str], name: str) -> keras.Model:
    """Returns the network from its inputs to {layer: its output}; raises UserError if a layer is missing."""
    return keras.Model(network.inputs, {layer: layer_output(network, layer, name) for layer in layers})


def export_network(
    network: keras.Model,
    transform: tft.TFTransformOutput,
    label: str,
    path: str,
    card: dict,
    head: Head = HEADS["classification"],
    hidden_layers: Sequence[str] = (),
) -> None:
    """Writes `network` (transformed features to logits) to `path` with the signatures above.

    Args:
      network: a built model with named inputs.
      transform: output of the Transform whose features the network was trained on.
      label: name of the label feature.
      path: folder of the SavedModel.
      card: JSON-able model card; "parameters", "head" and "class_names" are added.
      head: the meaning of the outputs.
      hidden_layers: names of the layers whose outputs the signature hidden_states returns.

    Raises:
      UserError: the network lacks one of the hidden layers.
    """
    # Shapes are Transform's: a scalar feature is [batch] there, and [batch, 1] only inside the network.
    spec = transform.transformed_feature_spec()
    inputs = {
        name: tf.TensorSpec([None, *spec[name].shape], spec[name].dtype, name=name) for name in network.input_names
    }

    def outputs(features):
        return network({name: features[name] for name in inputs}, training=False)

    module = tf.Module()
    module.network = _state_of(network)
    hidden_states = None
    if hidden_layers:
        hidden = _with_states(network, hidden_layers, card["name"])

        def hidden_states(features):
            return hidden({name: features[name] for name in inputs}, training=False)

    card = card | {"parameters": network.count_params()}
    save_with_signatures(
        module, outputs, inputs, transform, label, path, card, head, needs_autograph(network), hidden_states
    )


def export_pretrained(network: keras.Model, path: str, card: dict, hidden_layers: Sequence[str] = ()) -> None:
    """Writes a pre-trained network, for other training jobs to start from or to distil; it is not served.

    Its signatures are logits and, if layers were requested, hidden_states, both on transformed and masked features.

    Args:
      network: a built model with named inputs and the logits [batch, positions, vocabulary] of masked positions.
      path: folder of the SavedModel.
      card: JSON-able model card; "parameters" is added.
      hidden_layers: as in `export_network`.
    """
    inputs = {
        tensor.name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, tensor.name) for tensor in network.inputs
    }
    module = tf.Module()
    module.network = _state_of(network)
    autograph = needs_autograph(network)

    @tf.function(input_signature=[inputs], autograph=autograph)
    def logits(features):
        return {"logits": network(features, training=False)}

    signatures = {LOGITS_SIGNATURE: logits.get_concrete_function()}
    if hidden_layers:
        hidden = _with_states(network, hidden_layers, card["name"])

        @tf.function(input_signature=[inputs], autograph=autograph)
        def hidden_states(features):
            return hidden(features, training=False)

        signatures[HIDDEN_SIGNATURE] = hidden_states.get_concrete_function()
    tf.saved_model.save(module, path, signatures=signatures)
    write_card(path, card | {"parameters": network.count_params()})


def export_ensemble(
    teachers: Sequence[str],
    transform: tft.TFTransformOutput,
    label: str,
    path: str,
    card: dict,
    head: Head = HEADS["classification"],
    weights: Sequence[float] | None = None,
    combination: str = "arithmetic",
) -> None:
    """Writes one SavedModel with the combined distribution of the teachers at T = 1.

    Args:
      teachers: folders of exported models.
      transform, label, path, card, head: as in `export_network`.
      weights: the teachers' weights; None: equal.
      combination: as in `stillhouse.modules.models.combination`.
    """
    members = [Teacher(teacher, os.path.basename(teacher), head) for teacher in teachers]
    weights = list(weights or [1.0] * len(members))
    inputs: dict[str, tf.TensorSpec] = {}
    for member in members:
        inputs |= member.saved_model.signatures[LOGITS_SIGNATURE].structured_input_signature[1]

    def outputs(features):
        stacked = tf.stack([member(features) for member in members], axis=1)
        return combine(stacked, weights, 1.0, combination, head.name)

    module = tf.Module()
    module.members = [member.saved_model for member in members]
    card = card | {"parameters": sum(read_card(teacher)["parameters"] for teacher in teachers)}
    save_with_signatures(module, outputs, inputs, transform, label, path, card, head, autograph=False)
