import json
import os

import pytest
from tfx.components.pusher import executor as stock
from tfx.types import standard_artifacts

from stillhouse.components.last_pushed import versions
from stillhouse.components.last_pushed.executor import Executor as LastPushed
from stillhouse.components.last_pushed.versions import (
    NONE,
    choose_version,
    model_fingerprint,
    pushed_versions,
    version_before,
    version_of,
)
from stillhouse.components.pusher.executor import UNFINISHED, Executor, teacher_folder


def saved_model(folder, content="model"):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("weights")
    return folder


def artifact(kind, uri):
    made = kind()
    made.uri = str(uri)
    return made


def push(tmp_path, base, content="model", blessed=1, teachers=()):
    model = tmp_path / f"model-{content}"
    if not model.exists():
        saved_model(model / "Format-Serving", content)
    blessing = artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    blessing.set_int_custom_property("blessed", blessed)
    pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    inputs = {"model": [artifact(standard_artifacts.Model, model)], "model_blessing": [blessing]}
    for number, teacher in enumerate(teachers, start=1):
        if not (tmp_path / teacher).exists():
            saved_model(tmp_path / teacher / "Format-Serving", teacher)
        inputs[f"teacher_{number}"] = [artifact(standard_artifacts.Model, tmp_path / teacher)]
    destination = json.dumps({"filesystem": {"base_directory": str(base)}})
    Executor().Do(inputs, {"pushed_model": [pushed]}, {"push_destination": destination})
    return pushed


def test_a_push_makes_a_version_with_all_files(tmp_path):
    pushed = push(tmp_path, tmp_path / "serving")
    destination = pushed.get_string_custom_property("pushed_destination")
    assert os.path.dirname(destination) == str(tmp_path / "serving")
    assert version_of(str(tmp_path / "serving"), str(tmp_path / "model-model" / "Format-Serving")) in destination
    assert not (tmp_path / "serving" / UNFINISHED).exists()


def test_two_pushes_in_one_second_are_two_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(stock.time, "time", lambda: 1000.5)
    push(tmp_path, tmp_path / "serving", "one")
    push(tmp_path, tmp_path / "serving", "two")
    assert pushed_versions(str(tmp_path / "serving")) == ["1001", "1000"]


def test_a_refused_model_leaves_what_is_served_untouched(tmp_path):
    push(tmp_path, tmp_path / "serving", "one")
    before = sorted(tmp_path.glob("serving/**/*"))
    pushed = push(tmp_path, tmp_path / "serving", "two", blessed=0)
    assert pushed.get_int_custom_property("pushed") == 0
    assert sorted(tmp_path.glob("serving/**/*")) == before


def test_a_push_that_fails_half_way_shows_no_version(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stock.io_utils, "copy_file", no_space)
    with pytest.raises(OSError, match="No space left"):
        push(tmp_path, tmp_path / "serving")
    assert pushed_versions(str(tmp_path / "serving")) == []
    monkeypatch.undo()
    push(tmp_path, tmp_path / "serving", "again")
    assert len(pushed_versions(str(tmp_path / "serving"))) == 1
    assert not (tmp_path / "serving" / UNFINISHED).exists()


def test_versions_are_ordered_as_numbers_and_incomplete_ones_do_not_count(tmp_path):
    for version in ("9", "10"):
        saved_model(tmp_path / version)
    (tmp_path / "11").mkdir()
    (tmp_path / "notes").mkdir()
    assert pushed_versions(str(tmp_path)) == ["10", "9"]


def test_the_version_to_compare_with_is_the_newest_that_is_not_the_student_itself(tmp_path):
    student = str(saved_model(tmp_path / "student", "student"))
    assert version_before(str(tmp_path / "serving"), student) == NONE
    saved_model(tmp_path / "serving" / "1", "other")
    assert version_before(str(tmp_path / "serving"), student) == "1"
    saved_model(tmp_path / "serving" / "2", "student")
    assert version_before(str(tmp_path / "serving"), student) == "1"
    saved_model(tmp_path / "serving" / "3", "third")
    assert version_before(str(tmp_path / "serving"), student) == "3"


def test_last_pushed_copies_the_version_also_without_a_driver(tmp_path):
    saved_model(tmp_path / "serving" / "7", "served")
    saved_model(tmp_path / "student" / "Format-Serving", "student")
    inputs = {"student": [artifact(standard_artifacts.Model, tmp_path / "student")]}
    model = artifact(standard_artifacts.Model, tmp_path / "out")
    LastPushed().Do(inputs, {"model": [model]}, {"push_path": str(tmp_path / "serving"), "folder": ""})
    assert model.get_string_custom_property("version") == "7"
    assert (tmp_path / "out" / "Format-Serving" / "saved_model.pb").read_text() == "served"


def test_teachers_of_the_newest_push_are_kept_where_a_warm_start_finds_them(tmp_path, monkeypatch):
    serving = tmp_path / "serving"
    monkeypatch.setattr(stock.time, "time", lambda: 1000.5)
    push(tmp_path, serving, "one", teachers=["big", "bigger"])
    push(tmp_path, serving, "two", teachers=["big", "biggest"])
    push(tmp_path, serving, "three", blessed=0, teachers=["big", "refused"])
    assert pushed_versions(str(serving)) == ["1001", "1000"]
    second = serving / teacher_folder(2)
    assert [path.name for path in second.iterdir()] == ["1001"]
    assert (second / "1001" / "saved_model.pb").read_text() == "biggest"
    model = artifact(standard_artifacts.Model, tmp_path / "start")
    LastPushed().Do({}, {"model": [model]}, {"push_path": str(serving), "folder": teacher_folder(2)})
    assert (tmp_path / "start" / "Format-Serving" / "saved_model.pb").read_text() == "biggest"


def test_a_warm_start_takes_what_was_pushed_before_its_examples_were_ingested(tmp_path):
    for version in ("1000", "2000"):
        saved_model(tmp_path / "serving" / version)
    examples = artifact(standard_artifacts.Examples, tmp_path / "examples")
    properties = {"push_path": str(tmp_path / "serving"), "folder": ""}
    for milliseconds, expected in ((1_999_000, "1000"), (2_001_000, "2000"), (999_000, NONE), (0, "2000")):
        examples.mlmd_artifact.create_time_since_epoch = milliseconds
        assert choose_version({"examples": [examples]}, properties) == expected


def test_a_version_is_found_by_what_was_recorded_at_its_push_without_reading_its_files(tmp_path, monkeypatch):
    pushed = push(tmp_path, tmp_path / "serving")
    version = pushed.get_string_custom_property("pushed_destination")
    model = str(tmp_path / "model-model" / "Format-Serving")
    assert model_fingerprint(version) == model_fingerprint(model)
    read = []
    monkeypatch.setattr(versions, "model_fingerprint", lambda path: read.append(path) or model_fingerprint(path))
    assert version_of(str(tmp_path / "serving"), model) == os.path.basename(version)
    assert read == [model]


def test_a_version_without_a_record_is_found_by_its_files(tmp_path):
    saved_model(tmp_path / "serving" / "5", "elsewhere")
    student = str(saved_model(tmp_path / "student", "elsewhere"))
    assert version_of(str(tmp_path / "serving"), student) == "5"
    (tmp_path / "serving" / "5" / "variables" / "variables.index").write_text("other weights")
    assert version_of(str(tmp_path / "serving"), student) == NONE


def test_a_fingerprint_tells_names_and_bytes_apart(tmp_path):
    one, other = saved_model(tmp_path / "one"), saved_model(tmp_path / "other")
    assert model_fingerprint(str(one)) == model_fingerprint(str(other))
    (other / "saved_model.pb").rename(other / "saved_model.p")
    assert model_fingerprint(str(one)) != model_fingerprint(str(other))
