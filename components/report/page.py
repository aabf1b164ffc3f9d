"""Renders report.html: one file for the review of a student before it is pushed."""

import json
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from stillhouse.components.evaluation import EXAMPLES, LOWER_IS_BETTER, metric_name
from stillhouse.components.report import figures
from stillhouse.modules.distillation.summary import learnt, summary, treatment
from stillhouse.modules.visible import visible, visible_data, visible_json

PAGE = "report.html"
DETAILS = "details.json"  # the page's content beyond the comparison
MAX_CLASSES_IN_MATRIX = 20
MAX_MISTAKES = 20
WORST_SLICES = 20  # slices shown without unfolding
LOWER = {metric_name(name) for name in LOWER_IS_BETTER}


def render(comparison: dict[str, Any], details: dict[str, Any], again: str | None = None) -> str:
    """Returns the page.

    Args:
      comparison: as comparison.json has it.
      again: the command that repeats the run; None: unknown.
      details: {"histories": {model: {metric: [values]}}, "min_slice_examples": int, "versions": {package: version},
        "artifacts": {input: [URI]}, "taken_from": {URI: URI of an earlier run's}, "commit": str, "data": as
        `components.report.data` returns it, "dark_knowledge": DarkKnowledge's JSON, if that component ran}, and for
        classifiers {"classes": names, "calibration": {model: ...}, "confusion": {model: ...}, "disagreements": {...}},
        as `components.report.executor` gathers them.
    """
    settings = visible_json(json.dumps(comparison["settings"], indent=1, ensure_ascii=False))
    comparison, details = visible_data(comparison), visible_data(details)
    models = {model["name"]: model for model in comparison["models"]}
    student = next(model for model in models.values() if model["role"] == "student")
    reference = next((m for role in ("ensemble", "teacher") for m in models.values() if m["role"] == role), None)
    deciding = next((gate for gate in comparison["gates"] if gate.get("metric")), None)
    metric = deciding["metric"] if deciding else next(iter(student["metrics"]))
    roles = {name: model["role"] for name, model in models.items()}
    compared = {name for name, model in models.items() if roles[name] in ("student", "baseline") or model is reference}
    calibration = details.get("calibration", {})
    calibrated = {name: (roles[name], diagram) for name, diagram in calibration.items() if name in compared}
    histories = {name: (roles[name], history) for name, history in details["histories"].items()}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stillhouse.components.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.jinja").render(
        comparison=comparison,
        models=list(models.values()),
        metrics=list(dict.fromkeys(name for model in models.values() for name in model["metrics"])),
        student=student,
        reference=reference,
        metric=metric,
        compression=compression(student, reference, deciding),
        gained=gained(comparison),
        failed_gates=[gate for gate in comparison["gates"] if not gate["passed"]],
        hinton=_hinton(models.values(), metric),
        slices=compared_slices(list(models.values()), student, metric, details["min_slice_examples"]),
        worst_slices=WORST_SLICES,
        calibration=calibration,
        matrices=_matrices(details),
        disagreements=_pictured(details.get("disagreements"), reference),
        classes=details.get("classes"),
        trade_off=Markup(figures.trade_off(list(models.values()), metric)),
        reliability=Markup(figures.reliability(calibrated)) if calibrated else None,
        curves=Markup(figures.curves(histories)) if histories else None,
        run_id=comparison.get("run_id"),
        versions=details["versions"],
        artifacts=details["artifacts"],
        taken_from=details.get("taken_from", {}),
        commit=details["commit"],
        again=visible(again) if again else None,
        data=details["data"],
        dark_knowledge=_shown(details.get("dark_knowledge")),
        settings=settings,
    )


def gained(comparison: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the lines of the section about distillation; None: a run before there was one."""
    distillation, baseline = comparison.get("distillation"), comparison.get("baseline")
    if not distillation:
        return None
    return {
        "lines": list(filter(None, [summary(distillation), learnt(distillation)])),
        "diagnosis": distillation["diagnosis"],
        "reason": distillation["recovered_reason"],
        "baseline": treatment(baseline) if baseline else None,
    }


def compression(student: dict[str, Any], reference: dict[str, Any] | None, gate: dict[str, Any] | None) -> str:
    """Returns one line with the student's drop of the metric and its size and latency relative to the teachers'."""
    if reference is None:
        return f"student: {student['bytes']:,} bytes, {student['latency_ms']:.2f} ms"
    parts = []
    if gate and gate.get("change") is not None and gate["name"] == "teacher":
        lost = -gate["change"]
        verb = "lost" if lost >= 0 else "gained"
        parts.append(f"{abs(lost):.4f} {gate['metric'].replace('_', ' ')} {verb}")
    for key, more, less in (("bytes", "smaller", "larger"), ("latency_ms", "faster", "slower")):
        ratio = reference[key] / student[key]
        parts.append(f"{ratio:.1f}× {more}" if ratio >= 1 else f"{1 / ratio:.1f}× {less}")
    return f"student: {', '.join(parts)} than {reference['name']}"


def _hinton(models, metric: str) -> list[tuple[str, float]] | None:
    """Returns the rows of Hinton et al. 2015, table 1: a single net, the ensemble, the distilled net."""
    by_role = {model["role"]: model for model in models}
    if not {"ensemble", "baseline", "student"} <= set(by_role):
        return None
    names = {
        "baseline": "single net, hard labels",
        "ensemble": "ensemble of teachers",
        "student": "distilled single net",
    }
    return [(text, by_role[role]["metrics"][metric]) for role, text in names.items()]


def compared_slices(
    models: Sequence[dict[str, Any]], student: dict[str, Any], metric: str, min_examples: int
) -> list[dict[str, Any]]:
    """Returns the student's change on each slice against each other model, the worst first.

    Changes are positive where the metric gets better. Slices with fewer than `min_examples` examples, too small to
    judge, come last.
    """
    sign = -1.0 if metric in LOWER else 1.0
    # The student is compared with the ensemble, not with its members.
    teacher_role = "ensemble" if any(model["role"] == "ensemble" for model in models) else "teacher"
    references = [model for model in models if model["role"] in (teacher_role, "baseline", "pushed")]
    slices = []
    for name, values in student["slices"].items():
        changes = {
            reference["role"]: sign * (values[metric] - reference["slices"][name][metric])
            for reference in references
            if metric in reference["slices"].get(name, {}) and metric in values
        }
        if changes:
            count = int(values[EXAMPLES])
            slices.append({"name": name, "examples": count, "changes": changes, "too_small": count < min_examples})
    return sorted(slices, key=lambda row: (row["too_small"], min(row["changes"].values())))


def _matrices(details: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the confusion matrix of each model with fractions of its rows; for many classes, the largest mistakes."""
    matrices: dict[str, dict[str, Any]] = {}
    classes = details.get("classes", [])
    for name, matrix in details.get("confusion", {}).items():
        if len(matrix) <= MAX_CLASSES_IN_MATRIX:
            rows = [[(count, count / max(1, sum(row))) for count in row] for row in matrix]
            matrices[name] = {"rows": rows, "mistakes": None}
            continue
        mistakes = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count]
        largest = sorted(mistakes, key=lambda mistake: -mistake[0])[:MAX_MISTAKES]
        matrices[name] = {"rows": None, "mistakes": [(count, classes[i], classes[j]) for count, i, j in largest]}
    return matrices


def _shown(dark_knowledge: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns the dark knowledge, with a flag for matrices small enough to show."""
    if dark_knowledge is None:
        return None
    return dark_knowledge | {"matrices": len(dark_knowledge["classes"]) <= MAX_CLASSES_IN_MATRIX}


def _pictured(disagreements: dict[str, Any] | None, reference: dict[str, Any] | None) -> dict[str, Any] | None:
    if disagreements is None or reference is None:
        return None
    examples = []
    for example in disagreements["examples"]:
        pixels = example["image"]
        picture = Markup(figures.small_image(pixels, f"a {example['label']}")) if pixels else None
        examples.append(example | {"picture": picture})
    return disagreements | {"examples": examples}
