"""Gathers what distillation gained and why, and how the baseline was trained."""

from dataclasses import asdict
from typing import Any

from stillhouse.components.evaluation import STUDENT
from stillhouse.components.predictions.fidelity import fidelity, slice_fidelities
from stillhouse.components.predictions.paired import PairedChange, PairedTests, unit_values
from stillhouse.components.predictions.table import PredictionTable
from stillhouse.modules.distillation.diagnosis import Change, Facts, diagnose

OWN = (
    "optimizer",
    "batch_size",
    "label_smoothing",
    "seed",
)  # settings of the baseline that views and updates do not show


def fidelity_of(table: PredictionTable, reference: str, slices: list[str | list[str]]) -> dict[str, Any] | None:
    """Returns comparison.json's `fidelity`: the student beside the model `reference`, on all examples and by slice."""
    if table.head == "regression":
        return None
    columns = [[entry] if isinstance(entry, str) else entry for entry in slices]
    by_slice = slice_fidelities(table, reference, columns)
    return {
        "reference": reference,
        **asdict(fidelity(table, reference)),
        "slices": {name: asdict(value) for name, value in sorted(by_slice.items())},
    }


def distillation_of(
    table: PredictionTable,
    tests: PairedTests,
    metric: str,
    reference: str,
    baseline: str | None,
    card: dict[str, Any],
    settings: dict[str, Any],
    agreement: float | None,
) -> dict[str, Any]:
    """Returns comparison.json's `distillation`, as docs/comparison.md describes it.

    Args:
      table: predictions of the models for the eval examples.
      tests: the paired tests of `metric` between the table's models.
      metric: short name of the gates' metric.
      reference: name of the ensemble, or of the one teacher.
      baseline: name; None: it is not compared.
      card: the student's model card; an older one has nothing about its training inputs.
      settings: of the run.
      agreement: the student's with the reference on the eval examples; None: a regression.
    """
    learnt = card.get("distillation") or {}
    gain = tests.change(STUDENT, baseline) if baseline else None
    gap = tests.change(reference, baseline) if baseline else None
    unknown = None, "there is no baseline"
    recovered, reason = tests.recovered(STUDENT, baseline, reference) if baseline else unknown
    learning = settings["student"]["distillation"]
    only_reference, only_baseline = _only_right(table, reference, baseline)
    facts = Facts(
        metric=metric,
        reference=reference,
        baseline=baseline,
        gain=_change(gain),
        gap=_change(gap),
        recovered=recovered.share if recovered else None,
        entropy=learnt.get("entropy"),
        max_entropy=learnt.get("max_entropy"),
        agreement_train=learnt.get("agreement"),
        agreement_eval=agreement,
        soft_gradient_share=learnt.get("soft_gradient_share"),
        targets_vary=learnt.get("targets_vary", True),
        more_inputs=bool(settings["data"]["transfer"] or card.get("views")),
        temperature=_largest(learning["temperature"]),
        alpha=_largest(learning["alpha"]),
        pseudo_labels=bool(learning.get("pseudo_labels")),
        only_reference_right=only_reference,
        only_baseline_right=only_baseline,
        smaller_is_better=tests.lower_is_better,
    )
    return {
        "reference": reference,
        "baseline": baseline,
        "gain": _described(gain, metric),
        "gap": _described(gap, metric),
        "recovered": asdict(recovered) if recovered else None,
        "recovered_reason": reason,
        "fidelity": {"train": facts.agreement_train, "eval": agreement},
        "entropy": facts.entropy,
        "entropy_transfer": learnt.get("entropy_transfer"),
        "max_entropy": facts.max_entropy,
        "soft_gradient_share": facts.soft_gradient_share,
        "diagnosis": diagnose(facts),
    }


def baseline_of(card: dict[str, Any], student_card: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Returns comparison.json's `baseline`: how it was trained, from the cards of both and the run's settings."""
    own_settings = settings.get("baseline", {})
    of_student = student_card.get("updates")
    if of_student is not None:
        of_student += student_card.get("first_stage_updates", 0)
    return {
        "updates": card.get("updates"),
        "student_updates": of_student,
        "validation": card.get("validation"),
        "views": card.get("views"),
        "student_views": student_card.get("views"),
        "own": {name: own_settings[name] for name in OWN if own_settings.get(name) is not None},
    }


def _largest(schedule: dict[str, Any]) -> float:
    return max(schedule["start"], schedule["end"])


def _change(paired: PairedChange | None) -> Change | None:
    return Change(paired.change, paired.low, paired.high, paired.confidence) if paired else None


def _described(paired: PairedChange | None, metric: str) -> dict[str, Any] | None:
    return {"metric": metric, **asdict(paired), "verdict": paired.verdict} if paired else None


def _only_right(table: PredictionTable, reference: str, baseline: str | None) -> tuple[int, int]:
    """Returns the number of examples on which only the reference is right, and only the baseline; 0 for other heads."""
    if table.head != "classification" or baseline is None:
        return 0, 0
    theirs, own = (unit_values(table, name, "accuracy") > 0 for name in (reference, baseline))
    return int((theirs & ~own).sum()), int((own & ~theirs).sum())
