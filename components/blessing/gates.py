"""Decides a gate: compares the student with a reference model, overall and slice by slice."""

from dataclasses import asdict, dataclass
from typing import Any

from stillhouse.components.evaluation import EXAMPLES, OVERALL, ModelMetrics

# A drop of exactly the allowed size passes, whatever the last bit of the subtraction says.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Gate:
    """A gate's rule. Changes are student minus reference, in the direction in which the metric gets better."""

    name: str  # teacher, baseline or pushed
    metric: str  # short name, as stillhouse.components.evaluation.metric_name gives it
    lower_is_better: bool
    min_change: float  # a drop of at most d is -d
    min_change_per_slice: float | None = None
    min_slice_examples: int = 1


@dataclass(frozen=True)
class Decision:
    """A gate's decision about the student, with the reason in words."""

    name: str
    passed: bool
    reason: str
    metric: str
    change: float | None = None
    min_change: float | None = None

    def to_dict(self) -> dict:
        """Returns the decision as an entry of comparison.json."""
        return asdict(self)


def _change(gate: Gate, student: dict[str, float], reference: dict[str, float]) -> float:
    difference = student[gate.metric] - reference[gate.metric]
    return -difference if gate.lower_is_better else difference


def _compared(gate: Gate, student: dict[str, float], reference: dict[str, float]) -> str:
    return f"{gate.metric} {student[gate.metric]:.4f} against {reference[gate.metric]:.4f}"


def _limit(min_change: float) -> str:
    return f"required gain {min_change:g}" if min_change > 0 else f"allowed drop {abs(min_change):g}"


def _slices(count: int, more: str = "") -> str:
    return f"{count} {more}slice{'' if count == 1 else 's'}"


def decide(gate: Gate, evaluator_blessed: bool, student: ModelMetrics, reference: ModelMetrics | None) -> Decision:
    """Returns the gate's decision.

    The overall threshold is TFMA's (`evaluator_blessed`); the thresholds of slices are checked here, because
    TFMA's cannot leave out slices that are too small to judge.

    Args:
      gate: the rule.
      evaluator_blessed: whether the Evaluator blessed the student.
      student: the student's metrics.
      reference: the metrics of the model to compare with; None: no such model exists yet.
    """
    if reference is None:
        return Decision(gate.name, True, "no pushed model to compare with yet", gate.metric)
    change = _change(gate, student.overall, reference.overall)
    compared = _compared(gate, student.overall, reference.overall)
    result: dict[str, Any] = {"metric": gate.metric, "change": change, "min_change": gate.min_change}
    if not evaluator_blessed:
        reason = f"{compared}: change {change:+.4f}, {_limit(gate.min_change)}"
        return Decision(gate.name, False, reason, **result)
    judged, failed = 0, []
    per_slice = gate.min_change_per_slice
    if per_slice is not None:
        for name, metrics in sorted(student.slices.items()):
            if name == OVERALL or metrics[EXAMPLES] < gate.min_slice_examples:
                continue
            judged += 1
            slice_change = _change(gate, metrics, reference.slices[name])
            if slice_change < per_slice - ROUNDING:
                failed.append((slice_change, name))
    if per_slice is not None and failed:
        worst_change, worst = min(failed)
        more = f" (and {_slices(len(failed) - 1, 'more ')})" if len(failed) > 1 else ""
        reason = (
            f"slice {worst}: {_compared(gate, student.slices[worst], reference.slices[worst])}: change "
            f"{worst_change:+.4f}, {_limit(per_slice)}{more}"
        )
        return Decision(gate.name, False, reason, **result)
    slices = f"; {_slices(judged)} within {abs(per_slice):g}" if per_slice is not None and judged else ""
    reason = f"{compared}: change {change:+.4f}, {_limit(gate.min_change)}{slices}"
    return Decision(gate.name, True, reason, **result)
