"""Fidelity: how closely the student reproduces its teacher, whatever the labels (Stanton et al. 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillhouse.components.evaluation import STUDENT
from stillhouse.components.predictions.table import PredictionTable
from stillhouse.modules.models.serving import SMALLEST_PROBABILITY


@dataclass(frozen=True)
class Fidelity:
    """The student beside its teacher (or ensemble) on some examples."""

    agreement: float  # share of examples with the same predicted class; of several labels, of equal decisions
    kl: float  # mean KL(teacher ‖ student), nats
    examples: int


def fidelity(table: PredictionTable, reference: str) -> Fidelity:
    """Returns agreement with the model `reference`, and the divergence from it.

    KL(p ‖ q) = Σ p log(p / q) of the probabilities at temperature 1 (Kullback & Leibler 1951); of several labels the
    mean over labels of that between Bernoulli distributions.
    """
    student, teacher = (table.models[name].astype(np.float64) for name in (STUDENT, reference))
    if table.head == "multi_label":
        agreement = float(((student > 0.5) == (teacher > 0.5)).mean())
        divergence = _terms(teacher, student) + _terms(1 - teacher, 1 - student)
        return Fidelity(agreement, float(divergence.mean()), len(table))
    agreement = float((student.argmax(axis=-1) == teacher.argmax(axis=-1)).mean())
    return Fidelity(agreement, float(_terms(teacher, student).sum(axis=-1).mean()), len(table))


def slice_fidelities(
    table: PredictionTable, reference: str, slice_columns: Sequence[Sequence[str]]
) -> dict[str, Fidelity]:
    """Returns the fidelity on each slice, by the slice's name; `slice_columns` as `PredictionTable.slice_rows`'s."""
    return {name: fidelity(table.part(rows), reference) for name, rows in table.slice_rows(slice_columns).items()}


def _terms(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    p, q = np.maximum(p, SMALLEST_PROBABILITY), np.maximum(q, SMALLEST_PROBABILITY)
    return p * np.log(p / q)


def never_predicted(table: PredictionTable, reference: str) -> dict[str, tuple[int, int]]:
    """Returns the classes that the student predicts for no example although the model `reference` does for some.

    Returns:
      {class: (examples for which the reference predicts it, examples that have it as their label)}.
    """
    if table.head != "classification":
        return {}
    width = table.models[STUDENT].shape[1]
    student, teacher = (
        np.bincount(table.models[name].argmax(axis=-1), minlength=width) for name in (STUDENT, reference)
    )
    true = np.bincount(table.labels[table.known_labels(width)], minlength=width)
    names = table.classes or [str(number) for number in range(width)]
    return {
        names[number]: (int(teacher[number]), int(true[number]))
        for number in np.flatnonzero((teacher > 0) & (student == 0))
    }
