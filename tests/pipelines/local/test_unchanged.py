"""What is remembered of the last run below its root. Whole runs: end_to_end."""

import json

import pytest

from stillhouse.pipelines.local.unchanged import last_comparison, remember, unchanged_comparison

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
