"""What is remembered of the last run below its root. Whole runs: end_to_end."""

import json
import sys

import blobs
import pytest

from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.local.unchanged import fingerprint_of, last_comparison, remember, unchanged_comparison

FINISHED = {"run_id": "7", "pushed": None}


@pytest.mark.parametrize("text", [None, "", "{", "\udcff", "[]", "null", '{"run_id": "7"}'])
def test_a_comparison_that_is_missing_or_damaged_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "comparison.json").write_bytes(text.encode(errors="surrogateescape"))
    remember(tmp_path, "same")
    assert last_comparison(tmp_path) is None
    assert unchanged_comparison(tmp_path, "same") is None


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"fingerprint": "other"}'])
def test_what_is_not_remembered_or_was_another_has_changed(tmp_path, text):
    (tmp_path / "comparison.json").write_text(json.dumps(FINISHED))
    if text is not None:
        (tmp_path / ".last_run.json").write_text(text)
    assert unchanged_comparison(tmp_path, "same") is None


def test_the_same_is_unchanged_until_its_push_is_removed(tmp_path):
    pushed = tmp_path / "1"
    pushed.mkdir()
    for where in (None, str(pushed)):
        (tmp_path / "comparison.json").write_text(json.dumps(FINISHED | {"pushed": where}))
        remember(tmp_path, "same")
        assert unchanged_comparison(tmp_path, "same")["pushed"] == where
    pushed.rmdir()
    assert unchanged_comparison(tmp_path, "same") is None


@pytest.mark.parametrize("changed", ["blobs_task.py", "data/blobs.csv", "own_objective.py"])
def test_a_run_depends_on_task_data_and_a_users_objective(tmp_path, monkeypatch, changed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("blobs_task", "own_objective"):  # where another test has imported one, it is found there
        monkeypatch.delitem(sys.modules, module, raising=False)
    blobs.write_project(tmp_path)
    (tmp_path / "own_objective.py").write_text("def objective(student, teacher, temperature):\n    return 1\n")
    raw = blobs.settings()
    raw["student"]["distillation"] = {"objective": "own_objective.objective"}
    settings = parse_settings(raw, "blobs.yaml")
    before = fingerprint_of(settings)
    assert fingerprint_of(settings) == before
    path = tmp_path / changed
    path.write_text(path.read_text() + ("1,2,3,4,ash\n" if changed.endswith("csv") else "CHANGED = 1\n"))
    assert fingerprint_of(settings) != before
