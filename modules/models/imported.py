"""Teachers trained elsewhere: a SavedModel on transformed features becomes one like ours."""

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

SMALLEST_PROBABILITY = 1e-7  # below it a logit says no more than that


@dataclass(frozen=True)
class SavedTeacher:
    """Where the SavedModel is and what it gives."""

    name: str  # the node's
    path: str
    signature: str  # from transformed features to the outputs
    output: str | None  # name of the output; None: the only one
    outputs: str  # logits, probabilities, or auto: looked at and told


def fingerprint(path: str) -> str:
    """Returns a hash of all files of the SavedModel in `path`; "" if there are none."""
    found = hashlib.sha256()
    files = sorted(os.path.join(folder, name) for folder, _, names in tf.io.gfile.walk(path) for name in names)
    for name in files:
        found.update(os.path.relpath(name, path).encode())
        with tf.io.gfile.GFile(name, "rb") as file:
            while chunk := file.read(1 << 20):
                found.update(chunk)
    return found.hexdigest()[:16] if files else ""


def _load(teacher: SavedTeacher):
    """Returns the loaded model, its signature and the name of the output."""
    where = f"{teacher.name} (teachers[].saved_model {teacher.path})"
    try:
        model = saved_models.load(teacher.path)
    except OSError as error:
        raise UserError(f"{where}: no SavedModel there") from error
    if teacher.signature not in model.signatures:
        found = ", ".join(sorted(model.signatures)) or "none"
        raise UserError(f"{where}: no signature {teacher.signature!r}; set signature to one of: {found}")
    signature = model.signatures[teacher.signature]
    names = sorted(signature.structured_outputs)
    output = teacher.output or (names[0] if len(names) == 1 else None)
    if output not in names:
        raise UserError(f"{where}: set output to the one with the logits: {', '.join(names)}")
    return model, signature, output


def saved_width(teacher: SavedTeacher, head: Head) -> int:
    """Returns the number of outputs of the SavedModel.

    Raises:
      UserError: there is none in its path, or it has no such signature or output.
    """
    _, signature, output = _load(teacher)
    shape = signature.structured_outputs[output].shape
    return head.width(1 if shape.rank == 1 else shape[-1])


def _inputs(teacher: SavedTeacher, signature, spec: dict) -> dict[str, str]:
    """Returns {input of the signature: transformed feature}."""
    wanted = signature.structured_input_signature[1]
    if len(wanted) == 1 and len(spec) == 1:  # whatever the exporter called the only input
        return {next(iter(wanted)): next(iter(spec))}
    missing = sorted(set(wanted) - set(spec))
    if missing:
        raise UserError(
            f"{teacher.name}: its signature {teacher.signature!r} wants {', '.join(missing)}; the transformed features "
            f"are: {', '.join(sorted(spec))} (a teacher is asked with what preprocessing_fn returns)"
        )
    return {name: name for name in wanted}


def _fit(value: tf.Tensor, wanted: tf.TensorSpec) -> tf.Tensor:
    # A scalar feature is [batch] behind Transform, and [batch, 1] for most models.
    if wanted.shape.rank == value.shape.rank + 1:
        value = tf.expand_dims(value, -1)
    return tf.cast(value, wanted.dtype) if value.dtype != wanted.dtype else value


def _are_probabilities(teacher: SavedTeacher, head: Head, sample: np.ndarray) -> bool:
    """Returns whether the outputs have to be inverted."""
    if teacher.outputs != "auto":
        return teacher.outputs == "probabilities"
    if head.name == "regression":
        return False
    if head.name == "classification" and sample.shape[-1] > 1:
        return len(sample) >= ROWS_TO_TELL and bool(are_probabilities(sample).all())
    if np.all((sample >= 0) & (sample <= 1)):
        raise UserError(
            f"{teacher.name}: all its outputs are between 0 and 1, which may be probabilities or logits; set "
            "teachers[].outputs to probabilities or logits"
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
    """Writes the SavedModel to `path` with the signatures of `stillhouse.modules.models.export`, giving logits.

    Args:
      teacher: what to import.
      transform: output of the Transform whose features it is asked with.
      label: name of the label feature.
      head: of the models.
      features: transformed examples, by which probabilities are told from logits.
      path: folder of the result.

    Raises:
      UserError: signature, inputs or classes do not fit.
    """
    model, signature, output = _load(teacher)
    spec = {name: feature for name, feature in transform.transformed_feature_spec().items() if name != label}
    names = _inputs(teacher, signature, spec)
    wanted = signature.structured_input_signature[1]
    _check_class_names(teacher, class_names(transform, label))

    def answer(features):
        found = signature(**{name: _fit(features[feature], wanted[name]) for name, feature in names.items()})[output]
        return found[:, None] if found.shape.rank == 1 else found

    try:
        sample = answer(features).numpy()
    except (tf.errors.InvalidArgumentError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{teacher.name}: it cannot be asked with the transformed features: {reason}") from error
    invert = _are_probabilities(teacher, head, sample)
    if invert:
        progress.note(f"{teacher.name} gives probabilities, which are turned into logits")

    def outputs(features):
        return logits_of(answer(features), head) if invert else tf.cast(answer(features), tf.float32)

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


def _check_class_names(teacher: SavedTeacher, here: list[str] | None) -> None:
    if not tf.io.gfile.exists(os.path.join(teacher.path, CARD)):
        return  # not one of ours; nothing tells what its classes are
    theirs = read_card(teacher.path).get("class_names")
    if theirs and here and theirs != here:
        number = next((i for i, (a, b) in enumerate(zip(theirs, here, strict=False)) if a != b), None)
        difference = (
            f"its class {number} is {theirs[number]!r}, here it is {here[number]!r}"
            if number is not None
            else f"it has {len(theirs)} classes, here are {len(here)}"
        )
        raise UserError(f"{teacher.name}: its label vocabulary is another one: {difference}; train it on this data")
