"""Decides the gates: compares the student with one other model, overall and slice by slice."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from stillhouse.components.evaluation import EXAMPLES, OVERALL, ModelMetrics
from stillhouse.components.predictions.fidelity import Fidelity
from stillhouse.components.predictions.paired import PairedChange

# A drop of exactly the allowed size passes, whatever the last bit of the subtraction says.
ROUNDING = 1e-9
NAMED_SLICES = 3  # of those that were not judged


@dataclass(frozen=True)
class Gate:
    """A gate's rule. Changes are student minus other, in the direction in which the metric gets better."""

    name: str  # teacher, baseline or pushed
    other: str  # the other model's name in the comparison
    metric: str  # short name, as stillhouse.components.evaluation.metric_name gives it
    lower_is_better: bool
    min_change: float  # a drop of at most d is -d
    min_change_per_slice: float | None = None
    min_slice_examples: int = 1
    undefined_slices: Literal["fail", "skip"] = "fail"
    allow_no_slice: bool = False
    slice_columns: list[list[str]] = field(default_factory=list)  # as evaluation.slices sets them
    confidence: float | None = None  # of the paired interval whose lower end has to clear the limits


@dataclass(frozen=True)
class FidelityRule:
    """How closely the student has to reproduce its teacher; None: not checked."""

    other: str
    min_agreement: float | None
    min_agreement_per_slice: float | None
    max_kl: float | None
    min_slice_examples: int
    slice_columns: list[list[str]] = field(default_factory=list)  # as evaluation.slices sets them


@dataclass(frozen=True)
class JudgedSlices:
    """What became of the slices that the settings name."""

    judged: int = 0
    failed: list[str] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)  # fewer than min_slice_examples
    undefined: list[str] = field(default_factory=list)  # the metric is, on either model


@dataclass(frozen=True)
class Decision:
    """A gate's decision about the student, with the reason in words."""

    name: str
    passed: bool
    reason: str
    metric: str
    change: float | None = None
    min_change: float | None = None
    slices: JudgedSlices | None = None

    def to_dict(self) -> dict:
        """Returns the decision as an entry of comparison.json."""
        return asdict(self)


def _change(gate: Gate, student: dict[str, float], other: dict[str, float]) -> float:
    difference = student[gate.metric] - other[gate.metric]
    return -difference if gate.lower_is_better else difference


def _compared(gate: Gate, student: dict[str, float], other: dict[str, float]) -> str:
    return f"{gate.metric} {student[gate.metric]:.4f} against {other[gate.metric]:.4f}"


def _limit(min_change: float) -> str:
    return f"required gain {min_change:g}" if min_change > 0 else f"allowed drop {abs(min_change):g}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _named(slices: list[str]) -> str:
    more = len(slices) - NAMED_SLICES
    return ", ".join(slices[:NAMED_SLICES]) + (f" and {more} more" if more > 0 else "")


def _interval(paired: PairedChange) -> str:
    return f"({paired.confidence:.0%} interval {paired.low:+.4f} to {paired.high:+.4f})"


def decide(
    gate: Gate,
    student: ModelMetrics,
    other: ModelMetrics | None,
    paired: Mapping[str, PairedChange | None],
    empty_columns: Sequence[str] = (),
) -> Decision:
    """Returns the gate's decision.

    Limits are checked here and not by TFMA's thresholds, which know one baseline and cannot leave out slices that are
    too small to judge. An undefined metric is never a pass.

    Args:
      gate: the rule.
      student: the student's metrics.
      other: the metrics of the model to compare with; None: no such model exists yet.
      paired: the paired change by slice name, OVERALL included; None, or no entry: the metric is undefined there.
        TFMA gives 0 for some undefined metrics, such as the AUC of one class.
      empty_columns: columns of slices that no eval example has a value of.
    """
    if other is None:
        return Decision(gate.name, True, "no pushed model to compare with yet", gate.metric)
    overall = _defined(gate, student.overall, other.overall, paired.get(OVERALL))
    if overall is None:
        reason = (
            f"{gate.metric} is undefined on the eval split (AUC needs examples of both classes); nothing was judged"
        )
        return Decision(gate.name, False, reason, gate.metric, min_change=gate.min_change)
    change = _change(gate, student.overall, other.overall)
    result: dict[str, Any] = {"metric": gate.metric, "change": change, "min_change": gate.min_change}
    compared = _compared(gate, student.overall, other.overall)
    judgement = f"{compared}: change {change:+.4f} {_interval(overall)}, {_limit(gate.min_change)}"
    if not _clears(change, gate.min_change, gate, overall):
        return Decision(gate.name, False, judgement, **result)
    if not gate.slice_columns:
        return Decision(gate.name, True, judgement, **result)
    if gate.min_change_per_slice is None:
        reason = f"{judgement}; no slice judged (max_drop_per_slice is null)"
        return Decision(gate.name, True, reason, slices=JudgedSlices(), **result)
    if empty_columns:
        names = ", ".join(empty_columns)
        reason = f"evaluation.slices: no eval example has a value of {names}; correct the name of the column"
        return Decision(gate.name, False, reason, slices=JudgedSlices(), **result)
    slices = _judge_slices(gate, student, other, paired)
    passed, reason = _verdict_on_slices(gate, slices, student, other, paired)
    return Decision(gate.name, passed, f"{judgement}; {reason}" if passed else reason, slices=slices, **result)


def _defined(
    gate: Gate, student: Mapping[str, float], other: Mapping[str, float], paired: PairedChange | None
) -> PairedChange | None:
    """Returns the paired change, or None where the metric is undefined on either model."""
    values = (student.get(gate.metric, math.nan), other.get(gate.metric, math.nan))
    return paired if all(map(math.isfinite, values)) else None


def _clears(change: float, min_change: float, gate: Gate, paired: PairedChange) -> bool:
    """Whether a change clears the limit, and with a confidence the lower end of its interval too."""
    return min(change, paired.low if gate.confidence else change) >= min_change - ROUNDING


def _judge_slices(
    gate: Gate, student: ModelMetrics, other: ModelMetrics, paired: Mapping[str, PairedChange | None]
) -> JudgedSlices:
    judged, too_small, undefined, failed = 0, [], [], []
    for name, metrics in sorted(student.slices.items()):
        if name == OVERALL:
            continue
        if metrics[EXAMPLES] < gate.min_slice_examples:
            too_small.append(name)
            continue
        interval = _defined(gate, metrics, other.slices.get(name, {}), paired.get(name))
        if interval is None:
            undefined.append(name)
            continue
        judged += 1
        change = _change(gate, metrics, other.slices[name])
        if not _clears(change, gate.min_change_per_slice or 0.0, gate, interval):
            failed.append((change, name))
    return JudgedSlices(judged, [name for _, name in sorted(failed)], too_small, undefined)


def _verdict_on_slices(
    gate: Gate,
    slices: JudgedSlices,
    student: ModelMetrics,
    other: ModelMetrics,
    paired: Mapping[str, PairedChange | None],
) -> tuple[bool, str]:
    """Returns whether the slices pass, and why."""
    limit = gate.min_change_per_slice or 0.0
    if slices.failed:
        worst = slices.failed[0]
        change = _change(gate, student.slices[worst], other.slices[worst])
        more = f" (and {_count(len(slices.failed) - 1, 'more slice')})" if len(slices.failed) > 1 else ""
        interval = paired[worst]
        assert interval is not None  # it was judged
        compared = _compared(gate, student.slices[worst], other.slices[worst])
        return False, f"slice {worst}: {compared}: change {change:+.4f} {_interval(interval)}, {_limit(limit)}{more}"
    if slices.undefined and gate.undefined_slices == "fail":
        return False, (
            f"{gate.metric} is undefined on {_count(len(slices.undefined), 'slice')}: {_named(slices.undefined)}; "
            "choose another evaluation.metric or other slices, or set undefined_slices: skip"
        )
    not_judged = []
    if slices.too_small:
        not_judged.append(
            f"{_count(len(slices.too_small), 'slice')} not judged, fewer than {gate.min_slice_examples} examples: "
            f"{_named(slices.too_small)}"
        )
    if slices.undefined:
        not_judged.append(
            f"{_count(len(slices.undefined), 'slice')} skipped, {gate.metric} undefined: {_named(slices.undefined)}"
        )
    if not slices.judged and not gate.allow_no_slice:
        return False, (
            f"no slice could be judged ({'; '.join(not_judged) or 'none was found'}); lower min_slice_examples, set "
            "other evaluation.slices, or set allow_no_slice: true"
        )
    judged = f"{_count(slices.judged, 'slice')} within {abs(limit):g}" if slices.judged else "no slice judged"
    return True, "; ".join([judged, *not_judged])


def decide_fidelity(rule: FidelityRule, overall: Fidelity, slices: dict[str, Fidelity]) -> Decision:
    """Returns the decision about the student's fidelity.

    Args:
      rule: the limits.
      overall: fidelity on the whole eval split.
      slices: by slice name.
    """
    judgement = f"agreement with {rule.other} {overall.agreement:.4f}, KL divergence {overall.kl:.4f} nats"
    faults = []
    if rule.min_agreement is not None and overall.agreement < rule.min_agreement - ROUNDING:
        faults.append(f"required agreement {rule.min_agreement:g}")
    if rule.max_kl is not None and not overall.kl <= rule.max_kl + ROUNDING:
        faults.append(f"allowed KL divergence {rule.max_kl:g}")
    judged = None
    if rule.min_agreement_per_slice is not None:
        too_small = sorted(name for name, value in slices.items() if value.examples < rule.min_slice_examples)
        compared = {name: value for name, value in slices.items() if name not in too_small}
        failed = sorted(
            (value.agreement, name)
            for name, value in compared.items()
            if value.agreement < rule.min_agreement_per_slice - ROUNDING
        )
        judged = JudgedSlices(len(compared), [name for _, name in failed], too_small)
        if failed:
            agreement, name = failed[0]
            faults.append(f"slice {name}: agreement {agreement:.4f}, required {rule.min_agreement_per_slice:g}")
        elif not compared:
            faults.append(f"no slice has {rule.min_slice_examples} examples, so none could be judged")
    reason = "; ".join([judgement, *faults])
    return Decision("fidelity", not faults, reason, "agreement", overall.agreement, rule.min_agreement, judged)
