"""How a gate decides: the student against one other model, overall and slice by slice."""

from dataclasses import asdict, dataclass

from stillhouse.components.evaluation import EXAMPLES, OVERALL, ModelMetrics

# A drop of exactly the allowed size passes, whatever the last bit of the subtraction says.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Gate:
    """A gate's rule. Changes are student minus other, in the direction in which the metric gets better."""

    name: str  # teacher, baseline or pushed
    metric: str  # short name, as stillhouse.components.evaluation.metric_name gives it
    lower_is_better: bool
    min_change: float  # a drop of at most d is -d
    min_change_per_slice: float | None = None
    min_slice_examples: int = 1


@dataclass(frozen=True)
class Decision:
    """What a gate says about the student, with the reason as a sentence."""

    name: str
    passed: bool
    reason: str
    metric: str
    change: float | None = None
    min_change: float | None = None

    def to_dict(self) -> dict:
        """Returns the decision as it stands in comparison.json."""
        return asdict(self)


def _change(gate: Gate, student: dict[str, float], other: dict[str, float]) -> float:
    difference = student[gate.metric] - other[gate.metric]
    return -difference if gate.lower_is_better else difference


def _compared(gate: Gate, student: dict[str, float], other: dict[str, float]) -> str:
    return f"{gate.metric} {student[gate.metric]:.4f} against {other[gate.metric]:.4f}"


def _allowed(min_change: float) -> str:
    if not min_change:
        return "no drop"
    return f"a drop of at most {-min_change:g}" if min_change < 0 else f"a gain of at least {min_change:g}"


def decide(gate: Gate, evaluator_blessed: bool, student: ModelMetrics, other: ModelMetrics | None) -> Decision:
    """Returns the gate's decision.

    The overall threshold is TFMA's (`evaluator_blessed`); the thresholds of slices are checked here, because
    TFMA's cannot leave out slices that are too small to judge.

    Args:
      gate: the rule.
      evaluator_blessed: whether the Evaluator blessed the student.
      student: its metrics.
      other: the metrics of the model it is compared with; None: there is no such model yet.
    """
    if other is None:
        return Decision(gate.name, True, "there is no model to compare with yet", gate.metric)
    change = _change(gate, student.overall, other.overall)
    compared = _compared(gate, student.overall, other.overall)
    result = {"metric": gate.metric, "change": change, "min_change": gate.min_change}
    if not evaluator_blessed:
        reason = f"{compared}: a change of {change:+.4f}, {_allowed(gate.min_change)} is asked"
        return Decision(gate.name, False, reason, **result)
    judged, failed = 0, []
    if gate.min_change_per_slice is not None:
        for name, metrics in sorted(student.slices.items()):
            if name == OVERALL or metrics[EXAMPLES] < gate.min_slice_examples:
                continue
            judged += 1
            slice_change = _change(gate, metrics, other.slices[name])
            if slice_change < gate.min_change_per_slice - ROUNDING:
                failed.append((slice_change, name))
    if failed:
        worst_change, worst = min(failed)
        more = f" (and {len(failed) - 1} more slices)" if len(failed) > 1 else ""
        reason = (
            f"slice {worst}: {_compared(gate, student.slices[worst], other.slices[worst])}: a change of "
            f"{worst_change:+.4f}, {_allowed(gate.min_change_per_slice)} is asked{more}"
        )
        return Decision(gate.name, False, reason, **result)
    slices = f"; {judged} slices within {_allowed(gate.min_change_per_slice)}" if judged else ""
    return Decision(
        gate.name, True, f"{compared}: {change:+.4f}, {_allowed(gate.min_change)} is asked{slices}", **result
    )
