"""Imports teachers trained elsewhere: gives a SavedModel on transformed features stillhouse's signatures."""

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from stillhouse.modules import progress
from stillhouse.modules.errors import UserError
from stillhouse.modules.models import saved_models
from stillhouse.modules.models.card import CARD, read_card
from stillhouse.modules.models.export import class_names, save_with_signatures
from stillhouse.modules.models.heads import Head
from stillhouse.modules.models.teachers import ROWS_TO_TELL, are_probabilities

SMALLEST_PROBABILITY = 1e-7  # smaller probabilities are clipped


@dataclass(frozen=True)
class SavedTeacher:
    """Location and outputs of the SavedModel."""

    name: str  # name of the node
    path: str
    signature: str  # name of the signature, from transformed features to the outputs
    output: str | None  # name of the output; None: the only one
    outputs: str  # logits, probabilities, or auto: detected from the values


def fingerprint(path: str) -> str:
    """Returns a hash of all files of the SavedModel in `path`; "" if there are none."""
    digest = hashlib.sha256()
    files = sorted(os.path.join(folder, name) for folder, _, names in tf.io.gfile.walk(path) for name in names)
    for name in files:
        digest.update(os.path.relpath(name, path).encode())
        with tf.io.gfile.GFile(name, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16] if files else ""


def _load(teacher: SavedTeacher):
    """Returns the loaded model, its signature and the name of the output."""
    key = f"{teacher.name} (teachers[].saved_model {teacher.path})"
    try:
        model = saved_models.load(teacher.path)
    except OSError as error:
        raise UserError(f"{key}: no SavedModel in this folder") from error
    if teacher.signature not in model.signatures:
        signatures = ", ".join(sorted(model.signatures)) or "none"
        raise UserError(f"{key}: signature: found {teacher.signature!r}; expected one of: {signatures}")
    signature = model.signatures[teacher.signature]
    outputs = sorted(signature.structured_outputs)
    output = teacher.output or (outputs[0] if len(outputs) == 1 else None)
    if output not in outputs:
        raise UserError(f"{key}: set output to the output with the logits: {', '.join(outputs)}")
    return model, signature, output


def saved_width(teacher: SavedTeacher, head: Head) -> int:
    """Returns the number of outputs of the SavedModel.

    Raises:
      UserError: its path has no SavedModel, or the SavedModel lacks the signature or output.
    """
    _, signature, output = _load(teacher)
    shape = signature.structured_outputs[output].shape
    return head.width(1 if shape.rank == 1 else shape[-1])


def _inputs(teacher: SavedTeacher, signature, spec: dict) -> dict[str, str]:
    """Returns {input of the signature: transformed feature}."""
    input_specs = signature.structured_input_signature[1]
    if len(input_specs) == 1 and len(spec) == 1:  # the only input may have any name
        return {next(iter(input_specs)): next(iter(spec))}
    missing = sorted(set(input_specs) - set(spec))
    if missing:
        raise UserError(
            f"{teacher.name}: signature {teacher.signature!r}: found inputs {', '.join(missing)}; expected transformed "
            f"features, as preprocessing_fn returns them: {', '.join(sorted(spec))}"
        )
    return {name: name for name in input_specs}


def _fit(value: tf.Tensor, input_spec: tf.TensorSpec) -> tf.Tensor:
    # A scalar feature is [batch] in Transform's output, and [batch, 1] for most models.
    if input_spec.shape.rank == value.shape.rank + 1:
        value = tf.expand_dims(value, -1)
    return tf.cast(value, input_spec.dtype) if value.dtype != input_spec.dtype else value


def _are_probabilities(teacher: SavedTeacher, head: Head, sample: np.ndarray) -> bool:
    """Returns whether the outputs are probabilities, to be converted to logits."""
    if teacher.outputs != "auto":
        return teacher.outputs == "probabilities"
    if head.name == "regression":
        return False
    if head.name == "classification" and sample.shape[-1] > 1:
        return len(sample) >= ROWS_TO_TELL and bool(are_probabilities(sample).all())
    if np.all((sample >= 0) & (sample <= 1)):
        raise UserError(
            f"{teacher.name}: teachers[].outputs: all outputs are between 0 and 1, either probabilities or logits; set "
            "outputs to probabilities or logits"
        )
    return False


def logits_of(probabilities: tf.Tensor, head: Head) -> tf.Tensor:
    """Returns logits whose softmax (sigmoid for one column, or for the head multi_label) is `probabilities`."""
    clipped = tf.clip_by_value(tf.cast(probabilities, tf.float32), SMALLEST_PROBABILITY, 1.0)
    if head.name == "classification" and probabilities.shape[-1] > 1:
        return tf.math.log(clipped)
    return tf.math.log(clipped) - tf.math.log(tf.maximum(1.0 - clipped, SMALLEST_PROBABILITY))


def export_saved_teacher(
    teacher: SavedTeacher,
    transform: tft.TFTransformOutput,
    label: str,
    head: Head,
    features: dict[str, tf.Tensor],
    path: str,
) -> None:
    """Writes the SavedModel to `path` with the signatures of `stillhouse.modules.models.export`, returning logits.

    Args:
      teacher: the SavedModel to import.
      transform: output of the Transform whose features the teacher takes.
      label: name of the label feature.
      head: the head of all models.
      features: transformed examples, to distinguish probabilities from logits.
      path: folder of the result.

    Raises:
      UserError: signature, inputs or classes do not match.
    """
    model, signature, output = _load(teacher)
    spec = {name: feature for name, feature in transform.transformed_feature_spec().items() if name != label}
    names = _inputs(teacher, signature, spec)
    input_specs = signature.structured_input_signature[1]
    _check_class_names(teacher, class_names(transform, label))

    def predict(features):
        arguments = {name: _fit(features[feature], input_specs[name]) for name, feature in names.items()}
        predictions = signature(**arguments)[output]
        return predictions[:, None] if predictions.shape.rank == 1 else predictions

    try:
        sample = predict(features).numpy()
    except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{teacher.name}: inference on the transformed features failed: {reason}") from error
    invert = _are_probabilities(teacher, head, sample)
    if invert:
        progress.note(f"{teacher.name}: converting its probabilities to logits")

    def outputs(features):
        return logits_of(predict(features), head) if invert else tf.cast(predict(features), tf.float32)

    module = tf.Module()
    module.model = model
    inputs = {
        feature: tf.TensorSpec([None, *spec[feature].shape], spec[feature].dtype, name=feature)
        for feature in names.values()
    }
    card = {
        "name": teacher.name,
        "role": "teacher",
        "parameters": sum(int(np.prod(weight.shape)) for weight in signature.trainable_variables),
        "inverted_probabilities": invert,
    }
    save_with_signatures(module, outputs, inputs, transform, label, path, card, head, autograph=False)


def _check_class_names(teacher: SavedTeacher, expected_names: list[str] | None) -> None:
    if not tf.io.gfile.exists(os.path.join(teacher.path, CARD)):
        return  # not exported by stillhouse; its classes are unknown
    names = read_card(teacher.path).get("class_names")
    if names and expected_names and names != expected_names:
        pairs = enumerate(zip(names, expected_names, strict=False))
        number = next((number for number, (name, expected) in pairs if name != expected), None)
        difference = (
            f"found class {number} {names[number]!r}; expected {expected_names[number]!r}"
            if number is not None
            else f"found {len(names)} classes; expected {len(expected_names)}"
        )
        raise UserError(f"{teacher.name}: label vocabulary: {difference}; train it on this data")
