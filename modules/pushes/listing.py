"""What is known about each version in a push folder."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stillhouse.modules.pushes.files import file_system
from stillhouse.modules.pushes.versions import (
    SAVED_MODEL,
    is_damaged,
    made_by_stillhouse,
    newest_version,
    numbered_entries,
    read_record,
)

NOT_A_MODEL, FOREIGN, DAMAGED = "not a SavedModel", "made by another system", "damaged"


@dataclass(frozen=True)
class ListedVersion:
    """A version as its push record tells it, or, where that is silent, the comparison of the run that pushed it."""

    version: str
    path: str
    served: bool
    time: str | None  # ISO 8601, UTC
    pipeline: str | None
    run_id: str | None
    fingerprint: str | None
    copy_of: str | None  # the version that a rollback has copied
    fault: str | None
    metrics: dict[str, float] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)


def list_versions(push_path: str, comparisons: Iterable[dict[str, Any]] = ()) -> list[ListedVersion]:
    """Returns the entries with a number in the push folder, newest first, whoever made them.

    Args:
      push_path: the push folder.
      comparisons: contents of comparison.json files, for versions of which the push recorded a fingerprint only.
    """
    by_path = {comparison["pushed"]: comparison for comparison in comparisons}
    newest = newest_version(push_path)
    return [_listed(push_path, name, name == newest, by_path) for name in numbered_entries(push_path)]


def _listed(push_path: str, name: str, served: bool, by_path: dict[str, dict[str, Any]]) -> ListedVersion:
    path = os.path.join(push_path, name)
    record, comparison = read_record(path) or {}, by_path.get(path, {})
    fault: str | None
    if not file_system(path).exists(os.path.join(path, SAVED_MODEL)):
        fault = NOT_A_MODEL
    elif is_damaged(path):
        fault = DAMAGED
    else:
        fault = None if made_by_stillhouse(path) else FOREIGN
    return ListedVersion(
        version=name,
        path=path,
        served=served,
        time=record.get("time"),
        pipeline=record.get("pipeline") or comparison.get("pipeline"),
        run_id=record.get("run_id") or comparison.get("run_id"),
        fingerprint=record.get("fingerprint"),
        copy_of=record.get("copy_of"),
        fault=fault,
        metrics=record.get("metrics") or _student_metrics(comparison),
        gates=record.get("gates") or comparison.get("gates", []),
    )


def _student_metrics(comparison: dict[str, Any]) -> dict[str, float]:
    students = [model["metrics"] for model in comparison.get("models", []) if model["role"] == "student"]
    return students[-1] if students else {}
