"""The Pusher and LastPushed, called as TFX's launcher calls them. The push itself: tests/modules/pushes."""

import errno
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts

from stillhouse.components.checked_model import note_fingerprint
from stillhouse.components.last_pushed import executor as last_pushed
from stillhouse.components.last_pushed.executor import Executor as LastPushed
from stillhouse.components.last_pushed.versions import choose_version, version_before
from stillhouse.components.pusher import Pusher
from stillhouse.components.pusher.executor import Executor, teacher_folder
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes import files
from stillhouse.modules.pushes import push as pushes
from stillhouse.modules.pushes.rollback import roll_back
from stillhouse.modules.pushes.versions import NONE, model_fingerprint, pushed_versions, read_record
from stillhouse.pipelines.dag.create import sqlite


def saved_model(folder, content="model", card=True):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("weights")
    if card:
        (folder / "assets.extra").mkdir()
        (folder / "assets.extra" / "stillhouse.json").write_text("{}")
    return folder


def artifact(kind, uri):
    made = kind()
    made.uri = str(uri)
    return made


def inputs_of_push(tmp_path, content="model", blessed=1, teachers=(), checked=None):
    model = tmp_path / f"model-{content}"
    if not model.exists():
        saved_model(model / "Format-Serving", content)
    (tmp_path / "blessing").mkdir(exist_ok=True)
    blessing = artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    blessing.set_int_custom_property("blessed", blessed)
    note_fingerprint(blessing, checked or "")
    inputs = {"model": [artifact(standard_artifacts.Model, model)], "model_blessing": [blessing]}
    for number, teacher in enumerate(teachers, start=1):
        if not (tmp_path / teacher).exists():
            saved_model(tmp_path / teacher / "Format-Serving", teacher)
        inputs[f"teacher_{number}"] = [artifact(standard_artifacts.Model, tmp_path / teacher)]
    return inputs


def push(tmp_path, base, content="model", version=None, **inputs):
    pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    properties = {"push_destination": json.dumps({"filesystem": {"base_directory": str(base)}})}
    properties |= {"version": version} if version else {}
    Executor().Do(inputs_of_push(tmp_path, content, **inputs), {"pushed_model": [pushed]}, properties)
    return pushed


def version_of(pushed):
    return pushed.get_string_custom_property("pushed_version")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_push_makes_a_version_with_all_files_and_nothing_else(tmp_path):
    pushed = push(tmp_path, tmp_path / "serving")
    destination = tmp_path / "serving" / version_of(pushed)
    assert pushed.get_string_custom_property("pushed_destination") == str(destination)
    assert names(tmp_path / "serving") == [version_of(pushed)]
    model = tmp_path / "model-model" / "Format-Serving"
    assert read_record(str(destination))["fingerprint"] == model_fingerprint(str(model))
    files = {str(path.relative_to(destination)) for path in destination.rglob("*") if path.is_file()}
    expected = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()}
    assert files == expected | {"assets.extra/push.json"}


def test_two_pushes_in_one_second_are_two_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(pushes.time, "time", lambda: 1000.5)
    push(tmp_path, tmp_path / "serving", "one")
    push(tmp_path, tmp_path / "serving", "two")
    assert pushed_versions(str(tmp_path / "serving")) == ["1001", "1000"]


def test_a_model_that_is_the_newest_already_is_not_pushed_again(tmp_path, monkeypatch):
    serving = tmp_path / "serving"
    monkeypatch.setattr(pushes.time, "time", lambda: 1000.5)
    assert version_of(push(tmp_path, serving, "one")) == "1000"
    # As after a kill between the rename and the metadata's publish.
    assert version_of(push(tmp_path, serving, "one")) == "1000"
    assert version_of(push(tmp_path, serving, "two")) == "1001"
    assert version_of(push(tmp_path, serving, "one")) == "1002"
    assert pushed_versions(str(serving)) == ["1002", "1001", "1000"]
    (serving / "1002" / "variables" / "variables.index").write_text("wei")  # not what the record says
    assert version_of(push(tmp_path, serving, "one")) == "1003"


def run_pusher(tmp_path, content):
    """Runs a Pusher by TFX's runner; returns the version that it names, and whether that came from the cache."""
    model = tmp_path / f"model-{content}"
    if not model.exists():
        saved_model(model / "Format-Serving", content)
    importer = Importer(source_uri=str(model), artifact_type=standard_artifacts.Model).with_id("Model")
    destination = pusher_pb2.PushDestination()
    destination.filesystem.base_directory = str(tmp_path / "serving")
    pusher = Pusher(importer.outputs["result"], None, None, destination)
    store = sqlite(str(tmp_path / "metadata.sqlite"))
    root = str(tmp_path / "artifacts")
    LocalDagRunner().run(Pipeline("pushes", root, store, [importer, pusher], enable_cache=True))
    with metadata.Metadata(store) as handle:
        execution = max(handle.store.get_executions(), key=lambda each: each.id)
        events = handle.store.get_events_by_execution_ids([execution.id])
        (artifact_id,) = [event.artifact_id for event in events if event.type == event.OUTPUT]
        (pushed,) = handle.store.get_artifacts_by_id([artifact_id])
    is_cached = execution.last_known_state == execution.CACHED
    return pushed.custom_properties["pushed_version"].string_value, is_cached


def test_a_push_comes_from_the_cache_exactly_while_its_version_is_served(tmp_path):
    serving = tmp_path / "serving"
    saved_model(serving / "9000000000000", "of another system", card=False)
    run = partial(run_pusher, tmp_path)
    assert run("A") == ("9000000000001", False)
    assert run("A") == ("9000000000001", True)
    assert run("B") == ("9000000000002", False)
    assert run("A") == ("9000000000003", False)  # settings A, B, then A again
    assert run("A") == ("9000000000003", True)
    record = read_record(str(serving / "9000000000003"))
    assert record["pipeline"] == "pushes"
    assert record["run_id"]
    shutil.rmtree(serving / "9000000000003")  # the next push would get its number
    assert run("A") == ("9000000000004", False)
    (serving / "9000000000004" / "saved_model.pb").write_text("half")
    assert run("A") == ("9000000000005", False)


def test_what_is_pushed_is_what_was_checked(tmp_path):
    checked = model_fingerprint(str(saved_model(tmp_path / "model-model" / "Format-Serving")))
    weights = tmp_path / "model-model" / "Format-Serving" / "variables" / "variables.index"
    weights.write_text("wei")  # cut in half after the checks
    with pytest.raises(
        MachineError, match=f"{tmp_path}/model-model/.*model that was checked.* delete {tmp_path}/model"
    ):
        push(tmp_path, tmp_path / "serving", checked=checked)
    assert names(tmp_path / "serving") == []
    weights.write_text("weights")
    assert version_of(push(tmp_path, tmp_path / "serving", checked=checked))


def test_checks_of_different_files_are_no_check(tmp_path):
    inputs = inputs_of_push(tmp_path, checked="a" * 64)
    infra = artifact(standard_artifacts.InfraBlessing, tmp_path / "infra")
    infra.set_int_custom_property("blessed", 1)
    note_fingerprint(infra, "b" * 64)
    properties = {"push_destination": json.dumps({"filesystem": {"base_directory": str(tmp_path / "serving")}})}
    pushed = artifact(standard_artifacts.PushedModel, tmp_path / "pushed")
    with pytest.raises(MachineError, match="the model has changed between its checks"):
        Executor().Do(inputs | {"infra_blessing": [infra]}, {"pushed_model": [pushed]}, properties)
    assert not (tmp_path / "serving").exists()


def test_a_push_records_its_gates(tmp_path):
    gate = {"name": "teacher", "passed": True, "reason": "accuracy"}
    inputs_of_push(tmp_path)
    (tmp_path / "blessing" / "decisions.json").write_text(json.dumps([gate]))
    version = version_of(push(tmp_path, tmp_path / "serving"))
    record = read_record(str(tmp_path / "serving" / version))
    assert record["gates"] == [gate]
    assert record["time"].endswith("+00:00")


def test_a_refused_model_leaves_what_is_served_untouched(tmp_path):
    push(tmp_path, tmp_path / "serving", "one")
    before = sorted(tmp_path.glob("serving/**/*"))
    pushed = push(tmp_path, tmp_path / "serving", "two", blessed=0)
    assert pushed.get_int_custom_property("pushed") == 0
    assert sorted(tmp_path.glob("serving/**/*")) == before


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def no_space(source, target):
        Path(target).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(files.LOCAL, "copy", no_space)
    with pytest.raises(MachineError, match=f"push.path: no space left on the disk of {tmp_path}/serving; nothing was"):
        push(tmp_path, tmp_path / "serving", teachers=["big"])
    assert names(tmp_path / "serving" / teacher_folder(1)) == []
    assert names(tmp_path / "serving") == [".teachers"]
    monkeypatch.undo()
    push(tmp_path, tmp_path / "serving", "again")
    assert len(pushed_versions(str(tmp_path / "serving"))) == 1


def test_a_push_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "serving").write_text("a file")
    with pytest.raises(UserError, match=f"push.path: {tmp_path}/serving cannot be written"):
        push(tmp_path, tmp_path / "serving")


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
    saved_model(tmp_path / "serving" / "3", "student")  # pushed twice, by an older stillhouse
    assert version_before(str(tmp_path / "serving"), student) == "1"
    saved_model(tmp_path / "serving" / "4", "third")  # what is served when settings go back to the student's
    assert version_before(str(tmp_path / "serving"), student) == "4"


def test_after_a_rollback_the_student_is_compared_with_what_is_served_and_its_own_model_as_before(tmp_path):
    serving = tmp_path / "serving"
    for name in ("1", "2", "3"):
        saved_model(serving / name, f"model {name}")
    one, two, three = (str(saved_model(tmp_path / name, f"model {name}")) for name in ("1", "2", "3"))
    back = roll_back(str(serving), "2").version
    assert version_before(str(serving), three) == back
    assert version_before(str(serving), two) == "1"  # and not 3, which was pushed after it
    again = roll_back(str(serving), "1").version
    assert roll_back(str(serving), back).source == back
    assert version_before(str(serving), two) == "1"
    assert version_before(str(serving), one) == str(int(again) + 1)


def test_last_pushed_copies_the_version_also_without_a_driver(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(last_pushed, "check_comparable", compared.append)
    saved_model(tmp_path / "serving" / "7", "served")
    saved_model(tmp_path / "student" / "Format-Serving", "student")
    inputs = {"student": [artifact(standard_artifacts.Model, tmp_path / "student")]}
    model = artifact(standard_artifacts.Model, tmp_path / "out")
    LastPushed().Do(inputs, {"model": [model]}, {"push_path": str(tmp_path / "serving"), "folder": ""})
    assert model.get_string_custom_property("version") == "7"
    assert (tmp_path / "out" / "Format-Serving" / "saved_model.pb").read_text() == "served"
    assert compared == [str(tmp_path / "serving" / "7")]


def test_teachers_of_the_newest_push_are_kept_where_a_warm_start_finds_them(tmp_path, monkeypatch):
    serving = tmp_path / "serving"
    monkeypatch.setattr(pushes.time, "time", lambda: 1000.5)
    push(tmp_path, serving, "one", teachers=["big", "bigger"])
    push(tmp_path, serving, "two", teachers=["big", "biggest"])
    push(tmp_path, serving, "three", blessed=0, teachers=["big", "refused"])
    assert pushed_versions(str(serving)) == ["1001", "1000"]
    second = serving / teacher_folder(2)
    assert names(second) == ["1001"]
    assert (second / "1001" / "saved_model.pb").read_text() == "biggest"
    model = artifact(standard_artifacts.Model, tmp_path / "start")
    LastPushed().Do({}, {"model": [model]}, {"push_path": str(serving), "folder": teacher_folder(2)})
    assert (tmp_path / "start" / "Format-Serving" / "saved_model.pb").read_text() == "biggest"
    # A push that was killed before its teachers had their names, and runs again.
    shutil.rmtree(second)
    assert version_of(push(tmp_path, serving, "two", teachers=["big", "biggest"])) == "1001"
    assert names(second) == ["1001"]


@pytest.mark.parametrize("link", [".unfinished", ".unfinished-left", ".teachers", teacher_folder(1)])
def test_a_push_follows_no_link_out_of_its_folder(tmp_path, link):
    serving, elsewhere = tmp_path / "serving", tmp_path / "elsewhere"
    (elsewhere / "Teacher-1" / "1").mkdir(parents=True)
    (elsewhere / "1").mkdir()
    (elsewhere / "kept").write_text("kept")
    (serving / link).parent.mkdir(parents=True)
    (serving / link).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    if "teachers" in link:
        with pytest.raises(UserError, match=f"{serving}/{link}: found a symbolic link .to {elsewhere}"):
            push(tmp_path, serving, teachers=["big"])
        assert pushed_versions(str(serving)) == []
    else:
        version = version_of(push(tmp_path, serving, teachers=["big"]))
        assert names(serving) == [".teachers", version]
    assert sorted(elsewhere.rglob("*")) == before


def test_a_warm_start_takes_what_was_pushed_before_its_examples_were_ingested(tmp_path):
    for version in ("1000", "2000"):
        saved_model(tmp_path / "serving" / version)
    examples = artifact(standard_artifacts.Examples, tmp_path / "examples")
    properties = {"push_path": str(tmp_path / "serving"), "folder": ""}
    for milliseconds, expected in ((1_999_000, "1000"), (2_001_000, "2000"), (999_000, NONE), (0, "2000")):
        examples.mlmd_artifact.create_time_since_epoch = milliseconds
        assert choose_version({"examples": [examples]}, properties) == expected
    # A version that another system has made, or whose number is no time, does not matter.
    saved_model(tmp_path / "serving" / "1500", card=False)
    examples.mlmd_artifact.create_time_since_epoch = 1_999_000
    assert choose_version({"examples": [examples]}, properties) == "1000"
    late = saved_model(tmp_path / "serving" / "9000000000")
    record = {"fingerprint": "f", "time": "1970-01-01T00:30:00+00:00"}
    (late / "assets.extra" / "push.json").write_text(json.dumps(record))
    assert choose_version({"examples": [examples]}, properties) == "9000000000"
