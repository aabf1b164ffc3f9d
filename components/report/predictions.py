"""What predictions say beyond a metric: what is taken for what, how far confidence can be trusted, who disagrees."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 10  # of a reliability diagram
DISAGREEMENTS = 12  # examples that are shown
LARGEST_IMAGE = 64  # pixels a side


def confusion_matrix(labels: np.ndarray, probabilities: np.ndarray) -> list[list[int]]:
    """Returns how many examples of each class (row) are taken for each class (column).

    Args:
      labels: int [examples].
      probabilities: float [examples, classes].
    """
    classes = probabilities.shape[1]
    found = np.zeros([classes, classes], np.int64)
    np.add.at(found, (labels, probabilities.argmax(axis=-1)), 1)
    return found.tolist()


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Returns the reliability diagram and the expected calibration error (Guo et al. 2017, equation 3).

    Arguments are as `confusion_matrix`'s. A bin (a, b] has the examples whose largest probability lies in it.

    Returns:
      {"error": float, "bins": [{"confidence", "accuracy": means, "examples": int}, ...]}, without empty bins.
    """
    confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        if count:
            mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
            bins.append({"confidence": mean, "accuracy": accuracy, "examples": count})
            error += abs(accuracy - mean) * count / len(labels)
    return {"error": error, "bins": bins}


def disagreements(labels: np.ndarray, student: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Returns where the student's class is not the other model's.

    Args:
      labels: int [examples].
      student: its probabilities, float [examples, classes].
      other: likewise.

    Returns:
      {"share", "student_right", "other_right": float, shares of all examples, "telling": numbers of the examples whose
      two classes have the most probability of their models, at most DISAGREEMENTS}.
    """
    ours, theirs = student.argmax(axis=-1), other.argmax(axis=-1)
    differ = np.flatnonzero(ours != theirs)
    surest = np.argsort(-(student.max(axis=-1) * other.max(axis=-1))[differ], kind="stable")
    return {
        "share": len(differ) / len(labels),
        "student_right": float((ours[differ] == labels[differ]).sum()) / len(labels),
        "other_right": float((theirs[differ] == labels[differ]).sum()) / len(labels),
        "telling": differ[surest][:DISAGREEMENTS].tolist(),
    }


def image_of(features: dict[str, Sequence]) -> list[list[float]] | None:
    """Returns an example's features as a square grey image, 0 to 1, if that is what they look like.

    That is: one feature with a square number of numbers, or a square number of features NAME0, NAME1, ... with one
    number each, at least 3 pixels a side.
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
    candidates += [[of[number] for number in sorted(of)] for of in numbered.values()]
    pixels = max(candidates, key=len, default=[])
    side = math.isqrt(len(pixels))
    if side * side != len(pixels) or not 3 <= side <= LARGEST_IMAGE:
        return None
    least, most = min(pixels), max(pixels)
    scaled = [(value - least) / (most - least) if most > least else 0.0 for value in pixels]
    return [scaled[row * side : (row + 1) * side] for row in range(side)]
