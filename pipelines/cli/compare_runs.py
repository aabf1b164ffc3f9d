"""Several runs side by side: what changed in their settings, and in their results."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

NOT_THERE = "—"


def compare_runs(names: Sequence[str], comparisons: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns {"runs": names, "settings": {key: [value of each run]}, "results": likewise}.

    Of the settings only those that are not the same in all runs; None stands for what a run does not have.

    Args:
      names: of the runs.
      comparisons: theirs, in the same order.
    """
    settings = [_flat(comparison.get("settings", {})) for comparison in comparisons]
    keys = dict.fromkeys(key for run_settings in settings for key in run_settings)
    values = {key: [run_settings.get(key) for run_settings in settings] for key in keys}
    results = [_results(comparison) for comparison in comparisons]
    rows = dict.fromkeys(key for run_results in results for key in run_results)
    return {
        "runs": list(names),
        "settings": {key: row for key, row in values.items() if any(value != row[0] for value in row)},
        "results": {key: [run_results.get(key) for run_results in results] for key in rows},
    }


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Returns {"student.epochs": 3, "teachers.0.copies": 2, ...} of nested settings."""
    if not isinstance(value, dict | list) or not value:
        return {key: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        name: leaf
        for part, child in parts
        for name, leaf in _flat(child, f"{key}.{part}" if key else str(part)).items()
    }


def _results(comparison: dict[str, Any]) -> dict[str, Any]:
    results: dict[str, Any] = {"pushed": comparison["pushed"] is not None}
    for model in comparison["models"]:
        if model["role"] != "teacher" or model["name"] == "Teacher-1":
            results |= {f"{model['name']} {metric}": round(value, 6) for metric, value in model["metrics"].items()}
    student = next(model for model in comparison["models"] if model["role"] == "student")
    return results | {f"Student {name}": student[name] for name in ("parameters", "bytes", "latency_ms")}


def print_runs(comparison: dict[str, Any], console: Console) -> None:
    """Prints what `compare_runs` gives."""
    for title, name in (("settings that differ", "settings"), ("results", "results")):
        table = Table(title=title, title_justify="left")
        table.add_column("")
        for run in comparison["runs"]:
            table.add_column(escape(run), justify="right")
        for key, values in comparison[name].items():
            table.add_row(escape(key), *(NOT_THERE if value is None else escape(str(value)) for value in values))
        console.print(table)
