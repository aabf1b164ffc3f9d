"""Serves a SavedModel as a model server would: raw examples in, predictions out.

python -m stillhouse.modules.models.serving SAVED_MODEL EXAMPLES LABEL

prints JSON: {"metrics": {"example_count", "loss", "accuracy"}}, or {"refused": why} of a model that cannot be served.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from stillhouse.modules.models import saved_models
from stillhouse.modules.models.card import read_card
from stillhouse.modules.models.heads import HEADS

BATCH = 256
SMALLEST_PROBABILITY = 1e-7  # Keras clips there too


class NotServableError(Exception):
    """A model that does not load, or fails on raw examples; the message says how."""


@contextmanager
def _blaming_the_model() -> Iterator[None]:
    """Turns what TensorFlow raises while it loads or calls a model into NotServableError."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:  # the machine's fault
        raise
    except (tf.errors.OpError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        lines = str(error).strip().splitlines()
        raise NotServableError(f"{type(error).__name__}: {lines[0] if lines else 'no message'}") from error


def without_feature(serialized: bytes, name: str) -> bytes:
    """Returns a serialized tf.Example without the feature `name`."""
    example = tf.train.Example.FromString(serialized)
    example.features.feature.pop(name, None)
    return example.SerializeToString()


def read_records(pattern: str) -> tf.data.Dataset:
    """Returns the serialized examples of the gzip'd TFRecord files that match `pattern`."""
    return tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(pattern)), compression_type="GZIP")


def example_metrics(head: str, served: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns each metric of each example, [examples], by the evaluation's metric names; their means are the metrics.

    Args:
      head: classification, multi_label or regression.
      served: predictions, float64 [examples, outputs], or [examples] of a regression.
      labels: of the examples, as the head has them.
    """
    if head == "regression":
        errors = served - labels
        return {"mean_absolute_error": np.abs(errors), "loss": np.square(errors)}
    if head == "multi_label":
        of_truth = np.where(labels == 1, served, 1 - served)
        accuracy = ((served > 0.5) == (labels == 1)).mean(axis=-1)
        return {"accuracy": accuracy, "loss": -np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).mean(axis=-1)}
    of_label = served[np.arange(len(labels)), labels]
    accuracy = (served.argmax(axis=-1) == labels).astype(np.float64)
    return {"accuracy": accuracy, "loss": -np.log(np.maximum(of_label, SMALLEST_PROBABILITY))}


def served_metrics(saved_model: str, pattern: str, label: str) -> dict[str, float]:
    """Returns example_count, loss and accuracy (or mean_absolute_error) over raw examples sent without their label.

    Args:
      saved_model: folder of a model written by stillhouse.modules.models.export.
      pattern: pattern of the files of raw examples, with the label.
      label: name of the label column.

    Raises:
      NotServableError: the model does not load, or fails on the examples.
    """
    with _blaming_the_model():
        model = saved_models.load(saved_model)
        head = HEADS[read_card(saved_model)["head"]]
        serve, transformed_labels = model.signatures["serving_default"], model.signatures["transformed_labels"]
    examples = 0
    sums: dict[str, float] = {}
    for batch in read_records(pattern).batch(BATCH).as_numpy_iterator():
        requests = [without_feature(record, label) for record in batch]
        with _blaming_the_model():
            served = serve(examples=tf.constant(requests))[head.prediction_key].numpy()
            (labels,) = transformed_labels(examples=tf.constant(batch)).values()
        examples += len(batch)
        for name, values in example_metrics(head.name, served.astype(np.float64), labels.numpy()).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    if not examples:
        raise ValueError(f"no examples in {pattern}")
    return {"example_count": examples} | {name: value / examples for name, value in sums.items()}


def single_example_latencies(models: Sequence[Any], example: bytes, rounds: int = 200) -> list[tuple[float, float]]:
    """Returns each model's times for one raw example, median and 95th percentile, in milliseconds.

    Calls alternate between the models, so that a slow moment of the machine affects all of them.

    Args:
      models: loaded SavedModels written by stillhouse.modules.models.export.
      example: a serialized tf.Example without label.
      rounds: number of measured calls of each model, after a tenth of that for warm-up.
    """
    request = tf.constant([example])
    signatures = [model.signatures["serving_default"] for model in models]
    times: list[list[float]] = [[] for _ in signatures]
    for round_number in range(rounds + rounds // 10):
        for signature, samples in zip(signatures, times, strict=True):
            started = time.perf_counter()
            tf.nest.map_structure(np.asarray, signature(examples=request))
            if round_number >= rounds // 10:
                samples.append(1000 * (time.perf_counter() - started))
    return [(statistics.median(samples), float(np.quantile(samples, 0.95))) for samples in times]


def labels_of(model: Any, records: Sequence[bytes]) -> np.ndarray:
    """Returns the transformed labels of raw examples, by a loaded SavedModel."""
    signature = model.signatures["transformed_labels"]
    parts = (signature(examples=tf.constant(batch)) for batch in _batches(records))
    return np.concatenate([next(iter(part.values())).numpy() for part in parts])


def predictions_of(model: Any, records: Sequence[bytes], label: str, key: str) -> np.ndarray:
    """Returns a loaded SavedModel's output `key` for raw examples, sent without their label.

    Its first axis is the examples; the others are those of the head's prediction.
    """
    signature = model.signatures["serving_default"]
    requests = [without_feature(record, label) for record in records]
    parts = (signature(examples=tf.constant(batch))[key] for batch in _batches(requests))
    return np.concatenate([part.numpy() for part in parts])


def _batches(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    return (list(records[begin : begin + BATCH]) for begin in range(0, len(records), BATCH))


def size_in_bytes(path: str) -> int:
    """Returns the size of all files in a folder, such as a SavedModel."""
    return sum(
        tf.io.gfile.stat(os.path.join(folder, name)).length
        for folder, _, names in tf.io.gfile.walk(path)
        for name in names
    )


if __name__ == "__main__":
    try:
        print(json.dumps({"metrics": served_metrics(*sys.argv[1:])}))
    except NotServableError as reason:
        print(json.dumps({"refused": str(reason)}))
