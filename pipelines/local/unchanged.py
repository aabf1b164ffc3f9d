"""Whether anything has changed since the last run: files of the data, settings, code. Answers without TensorFlow."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from stillhouse.modules.atomic import write_text
from stillhouse.modules.code_fingerprint import code_fingerprint
from stillhouse.modules.settings import Settings
from stillhouse.pipelines.local.data_check import data_files

LAST_RUN = ".last_run.json"  # below a run's root
COMPARISON = "comparison.json"


def _stamps(paths: list[str]) -> list[tuple[str, int, int]]:
    stamps = []
    for path in sorted(filter(os.path.exists, paths)):  # what is missing, the run itself tells
        state = os.stat(path)
        stamps.append((path, state.st_size, state.st_mtime_ns))
    return stamps


def _files_below(folder: str | None) -> list[str]:
    return [str(path) for path in Path(folder).rglob("*") if path.is_file()] if folder else []


def fingerprint_of(settings: Settings) -> str:
    """Returns a hash of all that a run depends on; files count by name, size and time.

    Raises:
      UserError: there are no data.
    """
    data = settings.data
    files = data_files(data) + _files_below(data.transfer) + ([data.schema_file] if data.schema_file else [])
    for teacher in settings.teachers:
        files += _files_below(teacher.saved_model)
    modules = ["stillhouse.pipelines.dag.create", "stillhouse.modules.training.launch", settings.task]
    if "." in settings.objective:  # a user's own
        modules.append(settings.objective.rpartition(".")[0])
    code = [code_fingerprint(module) for module in modules]
    facts = [settings.model_dump(mode="json"), _stamps(files), code]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def remember(root: Path, fingerprint: str) -> None:
    """Writes down what the run under `root`, which has come to its end, depended on."""
    write_text(root / LAST_RUN, json.dumps({"fingerprint": fingerprint}))


def last_comparison(root: Path) -> dict[str, Any] | None:
    """Returns the comparison of the last run under `root`, or None if none has finished or its file is corrupt."""
    try:
        comparison = json.loads((root / COMPARISON).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return comparison if isinstance(comparison, dict) and {"run_id", "pushed"} <= comparison.keys() else None


def lost_push(comparison: dict[str, Any] | None) -> str | None:
    """Returns the push that a comparison records, if its folder no longer exists, else None."""
    pushed = comparison["pushed"] if comparison else None
    return pushed if pushed and not os.path.isdir(pushed) else None


def unchanged_comparison(root: Path, fingerprint: str) -> dict[str, Any] | None:
    """Returns the comparison of the last run if a new one would be the same, else None."""
    comparison = last_comparison(root)
    try:
        last = json.loads((root / LAST_RUN).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never run, or damaged: run
        return None
    same = comparison and not lost_push(comparison) and last == {"fingerprint": fingerprint}
    return comparison if same else None
