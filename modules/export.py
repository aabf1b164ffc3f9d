"""Models as SavedModels that serve raw tf.Examples.

Every exported model has the signatures
  serving_default     examples: string [batch] -> probabilities float32 [batch, classes], label [batch]
  transformed_labels  examples: string [batch] -> {evaluation_label(label): int64 [batch]}, the class ids, for TFMA
  logits              transformed features -> logits float32 [batch, outputs]
and a model card in assets.extra/, which TensorFlow Serving leaves alone.
"""

import json
import os
from collections.abc import Callable

import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras

from modules.autograph import needs_autograph
from modules.distillation.objectives import class_logits, mean_softened_log_probabilities
from modules.distillation.teachers import LOGITS_SIGNATURE, Teacher

CARD = os.path.join("assets.extra", "stillhouse.json")


def read_card(saved_model: str) -> dict:
    """Returns what `export_network` or `export_ensemble` noted about the model: name, role, parameters, ..."""
    with tf.io.gfile.GFile(os.path.join(saved_model, CARD)) as file:
        return json.load(file)


def evaluation_label(label: str) -> str:
    """Returns the name under which TFMA finds the class id.

    Not the label's own: TFMA would then slice by the class id instead of the raw column.
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


def _save(
    module: tf.Module,
    logits: Callable[[dict[str, tf.Tensor]], tf.Tensor],
    inputs: dict[str, tf.TensorSpec],
    transform: tft.TFTransformOutput,
    label: str,
    path: str,
    card: dict,
    autograph: bool,
) -> None:
    module.transform_layer = transform.transform_features_layer()
    names = class_names(transform, label)
    examples = tf.TensorSpec([None], tf.string, name="examples")

    @tf.function(input_signature=[examples], autograph=autograph)
    def serve(examples):
        features = module.transform_layer(tf.io.parse_example(examples, request_spec(transform, label)))
        scores = class_logits(logits(features))
        best = tf.argmax(scores, axis=-1)
        return {
            "probabilities": tf.nn.softmax(scores),
            "label": tf.gather(tf.constant(names), best) if names else best,
        }

    @tf.function(input_signature=[examples], autograph=autograph)
    def transformed_labels(examples):
        features = module.transform_layer(tf.io.parse_example(examples, transform.raw_feature_spec()))
        return {evaluation_label(label): tf.reshape(features[label], [-1])}

    @tf.function(input_signature=[inputs], autograph=autograph)
    def transformed_logits(features):
        return {"logits": logits(features)}

    tf.saved_model.save(
        module,
        path,
        signatures={
            "serving_default": serve,
            "transformed_labels": transformed_labels,
            LOGITS_SIGNATURE: transformed_logits.get_concrete_function(),
        },
        options=tf.saved_model.SaveOptions(experimental_debug_stripper=True),
    )
    card_path = os.path.join(path, CARD)
    tf.io.gfile.makedirs(os.path.dirname(card_path))
    with tf.io.gfile.GFile(card_path, "w") as file:
        json.dump(card | {"class_names": names}, file, indent=1, sort_keys=True)


def export_network(network: keras.Model, transform: tft.TFTransformOutput, label: str, path: str, card: dict) -> None:
    """Writes `network` (transformed features to logits) to `path` with the signatures above.

    Args:
      network: a built model with named inputs.
      transform: output of the Transform that the network was trained behind.
      label: name of the label feature.
      path: folder of the SavedModel.
      card: JSON-able facts to keep with the model; "parameters" and "class_names" are added.
    """
    # As Transform gives them: a scalar feature is [batch] there, and [batch, 1] only inside the network.
    spec = transform.transformed_feature_spec()
    inputs = {
        name: tf.TensorSpec([None, *spec[name].shape], spec[name].dtype, name=name) for name in network.input_names
    }

    def logits(features):
        return network({name: features[name] for name in inputs}, training=False)

    module = tf.Module()
    module.network = network
    card = card | {"parameters": network.count_params()}
    _save(module, logits, inputs, transform, label, path, card, needs_autograph(network))


def export_ensemble(teachers: list[str], transform: tft.TFTransformOutput, label: str, path: str, card: dict) -> None:
    """Writes one SavedModel whose distribution is the arithmetic mean of the teachers' (at T = 1).

    Its "logits" are the log of that mean, whose softmax is the mean again.

    Args:
      teachers: folders of exported models.
      transform, label, path, card: as in `export_network`.
    """
    members = [Teacher(teacher, os.path.basename(teacher)) for teacher in teachers]
    inputs = {}
    for member in members:
        inputs |= member.saved_model.signatures[LOGITS_SIGNATURE].structured_input_signature[1]

    def logits(features):
        return mean_softened_log_probabilities([member(features) for member in members], temperature=1.0)

    module = tf.Module()
    module.members = [member.saved_model for member in members]
    parameters = sum(read_card(teacher)["parameters"] for teacher in teachers)
    _save(module, logits, inputs, transform, label, path, card | {"parameters": parameters}, autograph=False)
