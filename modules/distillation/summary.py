"""What distillation gained, and how the baseline was trained, in lines for the terminal and the page.

The arguments are parts of comparison.json, as docs/comparison.md describes them.
"""

from typing import Any


def summary(distillation: dict[str, Any]) -> str:
    """Returns one line: the gain, the share of the gap, and the entropy of the soft targets, as far as known."""
    parts = []
    gain, recovered = distillation["gain"], distillation["recovered"]
    if gain:
        parts.append(
            f"gain {gain['change']:+.4f} {gain['metric']} over {distillation['baseline']} ({gain['confidence']:.0%} "
            f"interval {gain['low']:+.4f} to {gain['high']:+.4f}, p = {gain['p']:.2g}, {gain['test']})"
        )
    else:
        parts.append("gain unknown")
    if recovered:
        parts[-1] += (
            f", recovers {recovered['share']:.0%} ({recovered['low']:.0%} to {recovered['high']:.0%}) of the gap to "
            f"{distillation['reference']}"
        )
    entropies = [distillation["entropy"], distillation["entropy_transfer"]]
    held = [
        f"{value:.2f}{kind}" for value, kind in zip(entropies, ("", " (unlabelled)"), strict=True) if value is not None
    ]
    if held:
        parts.append(f"soft targets hold {' and '.join(held)} of {distillation['max_entropy']:.2f} nats")
    return "; ".join(parts)


def learnt(distillation: dict[str, Any]) -> str | None:
    """Returns one line: how far the student follows its teachers, and the soft term's share; None: nothing is known."""
    shares = {"its training inputs": distillation["fidelity"]["train"], "eval": distillation["fidelity"]["eval"]}
    parts = []
    if agreements := [f"{share:.1%} of {where}" for where, share in shares.items() if share is not None]:
        parts.append(f"the student agrees with its teachers on {' and '.join(agreements)}")
    if distillation["soft_gradient_share"] is not None:
        parts.append(
            f"the soft term had {distillation['soft_gradient_share']:.1%} of the gradient after its first epoch"
        )
    return "; ".join(parts) or None


def treatment(baseline: dict[str, Any]) -> str:
    """Returns one line: how the baseline was trained, relative to the student."""
    updates, of_student = baseline["updates"], baseline["student_updates"]
    parts = []
    if updates is not None:
        parts.append(f"{updates:,} updates ({_relation(updates, of_student)})")
    validation = baseline["validation"]
    if validation and validation.get("keep") != "last":
        parts.append(f"best epoch {validation['best_epoch']} of {validation['epochs']} by validation")
    else:
        parts.append("last epoch")
    own, other = baseline["views"], baseline["student_views"]
    if own is not None and other is not None:
        parts.append(_views(own, other))
    if baseline.get("own"):
        parts.append(f"its own {', '.join(baseline['own'])}".replace("_", " "))
    return ", ".join(parts)


def _relation(updates: int, of_student: int | None) -> str:
    if updates == of_student:
        return "the student's number"
    return f"the student {of_student:,}" if of_student is not None else "the student's are unknown"


def _views(own: dict[str, Any], other: dict[str, Any]) -> str:
    if own == other:
        return "same views as the student" if own else "no views, as the student"
    return f"views: {_listed(own)}; the student's: {_listed(other)}"


def _listed(views: dict[str, Any]) -> str:
    """Returns the views with their amounts."""
    names = [
        name if value is True else f"{name} of {', '.join(value)}" if isinstance(value, dict) else f"{name} {value:g}"
        for name, value in views.items()
    ]
    return ", ".join(names) or "none"
