"""Analyses predictions beyond a metric: confusion matrix, calibration, disagreements."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS = 10  # of a reliability diagram
DISAGREEMENTS = 12  # examples to show
LARGEST_IMAGE = 64  # pixels per side


def confusion_matrix(labels: np.ndarray, probabilities: np.ndarray) -> list[list[int]]:
    """Returns the number of examples of each true class (row) and predicted class (column).

    Args:
      labels: int [examples].
      probabilities: float [examples, classes].
    """
    classes = probabilities.shape[1]
    counts = np.zeros([classes, classes], np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=-1)), 1)
    return counts.tolist()


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Returns the reliability diagram and the expected calibration error (Guo et al. 2017, equation 3).

    Arguments: see `confusion_matrix`. A bin (a, b] contains the examples whose largest probability is in it.

    Returns:
      {"error": float, "bins": [{"confidence", "accuracy": means, "examples": int}, ...]}, without empty bins.
    """
    confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    bin_index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        inside = bin_index == number
        count = int(inside.sum())
        if count:
            mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
            bins.append({"confidence": mean, "accuracy": accuracy, "examples": count})
            error += abs(accuracy - mean) * count / len(labels)
    return {"error": error, "bins": bins}


def disagreements(labels: np.ndarray, student: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Returns the examples whose predicted classes differ between the student and the reference model.

    Args:
      labels: int [examples].
      student: the student's probabilities, float [examples, classes].
      reference: the reference model's probabilities, float [examples, classes].

    Returns:
      {"share", "student_right", "other_right": fractions of all examples, "telling": numbers of the examples on which
      both models are most confident, at most DISAGREEMENTS}.
    """
    ours, theirs = student.argmax(axis=-1), reference.argmax(axis=-1)
    differ = np.flatnonzero(ours != theirs)
    surest = np.argsort(-(student.max(axis=-1) * reference.max(axis=-1))[differ], kind="stable")
    return {
        "share": len(differ) / len(labels),
        "student_right": float((ours[differ] == labels[differ]).sum()) / len(labels),
        "other_right": float((theirs[differ] == labels[differ]).sum()) / len(labels),
        "telling": differ[surest][:DISAGREEMENTS].tolist(),
    }


def image_of(features: Mapping[str, Sequence]) -> list[list[float]] | None:
    """Returns an example's features as a square grey image, 0 to 1; None: they do not form one.

    They do if one feature has a square number of values, or if a square number of features NAME0, NAME1, ... have one
    value each, from 3 pixels per side on.
    """
    numbered: dict[str, dict[int, float]] = defaultdict(dict)
    candidates = []
    for name, values in features.items():
        if not all(isinstance(value, int | float) for value in values):
            continue
        candidates.append(list(values))
        tail = re.fullmatch(r"(.*?)(\d+)", name)
        if tail and len(values) == 1:
            numbered[tail[1]][int(tail[2])] = values[0]
    candidates += [[values[number] for number in sorted(values)] for values in numbered.values()]
    pixels = max(candidates, key=len, default=[])
    side = math.isqrt(len(pixels))
    if side * side != len(pixels) or not 3 <= side <= LARGEST_IMAGE:
        return None
    darkest, brightest = min(pixels), max(pixels)
    spread = brightest - darkest
    scaled = [(value - darkest) / spread if spread else 0.0 for value in pixels]
    return [scaled[row * side : (row + 1) * side] for row in range(side)]
