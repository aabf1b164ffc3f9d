"""What counts as a version, whoever made it."""

import json
import os

import pytest

from stillhouse.modules.errors import UserError
from stillhouse.modules.pushes.listing import list_versions
from stillhouse.modules.pushes.versions import (
    LARGEST_NUMBER,
    NONE,
    fingerprint_of_version,
    is_damaged,
    model_fingerprint,
    newest_version,
    next_number,
    numbered_entries,
    pushed_versions,
    read_record,
    version_to_report,
)


def saved_model(folder, content="model", record=None, card=True):
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    if card:
        (folder / "assets.extra" / "stillhouse.json").write_text("{}")
    if record is not None:
        record = {"fingerprint": model_fingerprint(str(folder))} | record
        (folder / "assets.extra" / "push.json").write_text(json.dumps(record))
    return folder


def test_a_version_is_what_a_model_server_takes_for_one(tmp_path):
    for name in ("7", "007", "12", " 13 ", "+14", "²", "٣", "1e3", "-5", "1_0", "", "7.old", str(LARGEST_NUMBER + 1)):
        if name:
            (tmp_path / name).mkdir()
    (tmp_path / "15").write_text("a file")
    (tmp_path / "16").symlink_to(tmp_path / "missing")
    assert numbered_entries(str(tmp_path)) == ["16", "15", "+14", " 13 ", "12", "7", "007"]
    assert pushed_versions(str(tmp_path)) == []
    assert newest_version(str(tmp_path)) == NONE
    saved_model(tmp_path / "007" / "nested")
    (tmp_path / "007" / "saved_model.pb").write_text("model")
    assert newest_version(str(tmp_path)) == "007"


def test_the_next_number_is_the_largest_whatever_lies_there(tmp_path):
    assert next_number(str(tmp_path / "missing"), 1000) == 1000
    (tmp_path / "²").mkdir()
    (tmp_path / "999").mkdir()
    assert next_number(str(tmp_path), 1000) == 1000
    (tmp_path / "02000").write_text("a file")  # written while the clock was ahead
    assert next_number(str(tmp_path), 1000) == 2001
    (tmp_path / str(LARGEST_NUMBER - 1)).mkdir()
    assert next_number(str(tmp_path), 1000) == LARGEST_NUMBER
    (tmp_path / str(LARGEST_NUMBER)).mkdir()
    with pytest.raises(UserError, match=f"push.path: {tmp_path}/9223372036854775807 has the largest number.*move it"):
        next_number(str(tmp_path), 1000)


def test_a_fingerprint_depends_on_names_and_bytes_but_not_on_the_record(tmp_path):
    one, other = saved_model(tmp_path / "one"), saved_model(tmp_path / "other", record={})
    assert model_fingerprint(str(one)) == model_fingerprint(str(other))
    (other / "saved_model.pb").rename(other / "saved_model.p")
    assert model_fingerprint(str(one)) != model_fingerprint(str(other))
    name = os.fsdecode(b"\xff")
    (one / name).write_text("a name that is not UTF-8")
    assert model_fingerprint(str(one))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": 7}', "\udcff"])
def test_a_record_of_another_system_is_none(tmp_path, text):
    version = saved_model(tmp_path / "1", record={})
    (version / "assets.extra" / "push.json").write_bytes(text.encode(errors="surrogateescape"))
    assert read_record(str(version)) is None
    assert not is_damaged(str(version))
    assert fingerprint_of_version(str(version)) == model_fingerprint(str(version))


def test_only_the_newest_version_is_reported_and_only_undamaged(tmp_path):
    one, two = saved_model(tmp_path / "1", "one", record={}), saved_model(tmp_path / "2", "two", record={})
    fingerprints = [model_fingerprint(str(version)) for version in (one, two)]
    assert [version_to_report(str(tmp_path), each) for each in fingerprints] == [NONE, "2"]
    (tmp_path / "3").mkdir()  # what a server that starts would try, in vain
    assert version_to_report(str(tmp_path), fingerprints[1]) == NONE
    (tmp_path / "3").rmdir()
    (two / "saved_model.pb").write_text("tw")
    assert is_damaged(str(two))
    assert version_to_report(str(tmp_path), fingerprints[1]) == NONE
    assert version_to_report(str(tmp_path), model_fingerprint(str(two))) == NONE


def test_the_list_has_what_records_and_comparisons_tell_and_names_what_is_foreign_or_damaged(tmp_path):
    gates = [{"name": "teacher", "passed": True, "reason": "accuracy"}]
    student = {"role": "student", "metrics": {"accuracy": 0.5}}
    saved_model(tmp_path / "1", "one", record={})  # by an older stillhouse
    saved_model(tmp_path / "2", card=False)
    (tmp_path / "3").mkdir()
    record = {"run_id": "r", "pipeline": "p", "time": "2026-01-02T03:04:05+00:00", "metrics": {"auc": 1.0}}
    saved_model(tmp_path / "4", "four", record=record | {"gates": gates, "copy_of": "1"})
    (saved_model(tmp_path / "5", "five", record={}) / "saved_model.pb").write_text("fi")
    comparison = {"pushed": str(tmp_path / "1"), "run_id": "c", "pipeline": "p", "models": [student], "gates": gates}
    five, four, three, two, one = list_versions(str(tmp_path), [comparison])
    assert [version.fault for version in (five, four, three, two, one)] == [
        "damaged",
        None,
        "not a SavedModel",
        "made by another system",
        None,
    ]
    assert [version.served for version in (five, four)] == [True, False]
    assert (four.time, four.run_id, four.metrics, four.gates, four.copy_of) == (
        "2026-01-02T03:04:05+00:00",
        "r",
        {"auc": 1.0},
        gates,
        "1",
    )
    assert (one.time, one.run_id, one.pipeline, one.metrics, one.gates) == (None, "c", "p", {"accuracy": 0.5}, gates)
