"""Dark knowledge: the information in soft targets beyond the right class.

Hinton's term for the relative probabilities of the wrong answers, which show how a teacher generalises (Hinton et al.
2015, introduction: a BMW may be mistaken for a garbage truck, but far more often than for a carrot).
"""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from stillhouse.modules.ingestion.examples import ExampleParser, labelled_batches
from stillhouse.modules.ingestion.files import ExampleFiles
from stillhouse.modules.ingestion.soft_targets import SoftTargetsCard
from stillhouse.modules.models.combination import combine
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.teachers import LOGITS

TELLING = 12  # examples to list
RUNNERS_UP = 3  # classes listed per telling example
# The features of a telling example are included if they are small enough to show.
MAX_NUMBERS_SHOWN = 1024
BATCH = 1024


class _AtTemperature:
    """Sums over the examples at one temperature."""

    def __init__(self, temperature: float, classes: int):
        self.temperature = temperature
        self.sums = np.zeros([classes, classes])
        self.counts = np.zeros(classes, np.int64)
        self.entropies: list[np.ndarray] = []

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        np.add.at(self.sums, labels, probabilities)
        np.add.at(self.counts, labels, 1)
        self.entropies.append(-np.sum(probabilities * np.log(np.maximum(probabilities, 1e-300)), axis=-1))

    def result(self) -> dict[str, Any]:
        entropy = np.concatenate(self.entropies)
        seen = self.counts > 0
        mean = np.where(seen[:, None], self.sums / np.maximum(self.counts, 1)[:, None], 0.0)
        return {
            "temperature": self.temperature,
            "mean_soft_targets": [[round(float(p), 6) for p in row] for row in mean],
            "entropy": {
                "mean": float(entropy.mean()),
                "p50": float(np.quantile(entropy, 0.5)),
                "p95": float(np.quantile(entropy, 0.95)),
                "largest_possible": float(np.log(len(self.counts))),
            },
        }


def find_dark_knowledge(
    files: ExampleFiles,
    card: SoftTargetsCard,
    feature_spec: dict,
    label: str,
    temperatures: Sequence[float],
    weights: Sequence[float],
    combination: str,
    names: list[str] | None,
) -> dict[str, Any]:
    """Returns the dark knowledge of an ensemble's soft targets.

    Args:
      files: labelled transformed examples and the folder of their soft targets.
      card: the soft targets' card.
      feature_spec: parsing spec of the transformed features.
      label: name of the label feature, a class id.
      temperatures: the temperatures that soften the targets.
      weights, combination: the ensemble's settings.
      names: the class names; None: the class ids.

    Returns:
      classes (names), examples (count, count per class), temperatures: for each T the class-similarity matrix
      mean_soft_targets[true class][class] and the entropy of the targets in nats; telling: examples on which the
      ensemble is right and, at the highest T, least certain between its first and second class.
    """
    classes = card.shapes[LOGITS][1]
    names = names or [str(number) for number in range(classes)]
    sums = [_AtTemperature(temperature, classes) for temperature in sorted(temperatures)]
    telling: list[tuple[float, int, dict]] = []  # a heap; the number breaks ties
    number = 0
    parser = ExampleParser(feature_spec, label, HEADS["classification"], card)
    batches = labelled_batches(files, parser, BATCH)
    for features, labels, targets in batches.as_numpy_iterator():
        for at in sums:
            combined = combine(tf.constant(targets[LOGITS]), weights, at.temperature, combination, "classification")
            probabilities = tf.nn.softmax(tf.cast(combined, tf.float64) / at.temperature).numpy()
            at.add(probabilities, labels)
        # `probabilities` are now those of the highest temperature.
        order = np.argsort(-probabilities, axis=-1)
        for row in np.flatnonzero(order[:, 0] == labels):
            first, second = probabilities[row, order[row, :2]]
            entry = {
                "example": number + int(row),
                "class": names[labels[row]],
                "probabilities": {names[k]: round(float(probabilities[row, k]), 6) for k in order[row, :RUNNERS_UP]},
            }
            item = (float(second / first), -number - int(row), entry | {"features": _shown(features, int(row))})
            if len(telling) < TELLING:
                heapq.heappush(telling, item)
            elif item > telling[0]:
                heapq.heapreplace(telling, item)
        number += len(labels)
    return {
        "classes": names,
        "examples": number,
        "examples_per_class": [int(count) for count in sums[0].counts],
        "temperatures": [at.result() for at in sums],
        "telling": [entry for _, _, entry in sorted(telling, reverse=True)],
    }


def _shown(features: dict[str, np.ndarray], row: int) -> dict[str, Any] | None:
    values = {name: value[row] for name, value in features.items() if isinstance(value, np.ndarray)}
    if sum(value.size for value in values.values()) > MAX_NUMBERS_SHOWN:
        return None
    return {
        name: np.round(value, 4).tolist() if np.issubdtype(value.dtype, np.number) else str(value)
        for name, value in values.items()
    }
