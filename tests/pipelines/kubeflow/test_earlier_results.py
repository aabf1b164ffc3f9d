"""Results of earlier runs: nothing stale, nothing half, whatever happens to the objects."""

import copy
import json
import threading
from dataclasses import replace
from pathlib import Path

import object_store
import pytest

from stillhouse.components.base import TAKEN_FROM
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Storage
from stillhouse.pipelines.kubeflow import earlier_results
from stillhouse.pipelines.kubeflow.earlier_results import Task, key_of, outside_files, remember, take
from stillhouse.pipelines.kubeflow.object_storage import (
    ACCESS_KEY,
    SECRET_KEY,
    ObjectStorage,
    environment_of,
    secret_of,
)

ROOT = f"minio://{object_store.BUCKET}/v2/artifacts"
URI = f"{ROOT}/blobs/run-1/student/model"
TASK_MODULE = '''
"""A task."""
def preprocessing_fn(inputs): return inputs
def build_teacher(): return 1
def build_student(): return 2
'''


@pytest.fixture
def storage(store):
    environment = {**environment_of(Storage(endpoint=store.endpoint)), ACCESS_KEY: "key", SECRET_KEY: "secret"}
    return ObjectStorage(ROOT, environment)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A training whose inputs and code are in the folder of the test."""
    (tmp_path / "some_task.py").write_text(TASK_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "examples" / "Split-train").mkdir(parents=True)
    (tmp_path / "examples" / "Split-train" / "data.gz").write_bytes(b"records")
    config = {"task": "some_task", "epochs": 3, "distillation": {"objective": "kl_divergence"}}
    return Task(
        folder=earlier_results.folder_of(ROOT, "blobs", "student"),
        executor="stillhouse.components.distillation_trainer.executor.Executor",
        parameters={"custom_config": json.dumps(config), "run_fn": "stillhouse.modules.training.launch.run_fn"},
        inputs={"examples[0]": ({"split_names": '["train"]', "span": 0}, str(tmp_path / "examples"))},
        outputs=("model",),
        omitted=("preprocessing_fn", "build_teacher"),
    )


def made(folder: Path) -> Path:
    """Returns a folder with what a training leaves: files in folders, one of them compressed, one empty."""
    for name, content in (("saved_model.pb", b"graph"), ("assets/vocabulary.gz", b"\x1f\x8bwords"), ("empty", b"")):
        (folder / "Format-Serving" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "Format-Serving" / name).write_bytes(content)
    return folder


def recorded(store, storage, task, tmp_path):
    """Leaves a result as a run does: the record first, then the launcher's upload."""
    folder = made(tmp_path / "made")
    remember(storage, task, task.facts(), {"model": (URI, {"tfx_version": "1.16.0"}, str(folder))})
    prefix = URI.removeprefix(f"minio://{object_store.BUCKET}/")
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
    return prefix


def content(folder: Path):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_run_has_left_is_taken_file_by_file(store, storage, task, tmp_path, capsys):
    recorded(store, storage, task, tmp_path)
    found = take(storage, task, task.facts(), {"model": str(tmp_path / "taken")})
    assert found == {"model": {"tfx_version": "1.16.0", TAKEN_FROM: URI}}
    assert content(tmp_path / "taken") == content(tmp_path / "made")
    assert f"model: taken from {URI}; code, parameters and inputs are those of that run" in capsys.readouterr().out


def test_a_record_without_its_objects_is_no_result(storage, task, tmp_path, capsys):
    """The launcher uploads after the record is written: or never."""
    folder = made(tmp_path / "made")
    remember(storage, task, task.facts(), {"model": (URI, {}, str(folder))})
    assert take(storage, task, task.facts(), {"model": str(tmp_path / "taken")}) is None
    assert "is gone or was changed since" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if "taken" in path.name] == []


@pytest.mark.parametrize("damage", ["deleted", "other bytes of the same size", "cut"])
@pytest.mark.parametrize("name", ["saved_model.pb", "assets/vocabulary.gz"])
def test_an_object_that_was_changed_or_deleted_is_no_result(store, storage, task, tmp_path, damage, name):
    prefix = recorded(store, storage, task, tmp_path)
    object_key = f"{prefix}/Format-Serving/{name}"
    if damage == "deleted":
        store.delete(object_key)
    else:
        before = store.read(object_key)
        store.write(object_key, before[:-1] if damage == "cut" else b"?" + before[1:])
    assert take(storage, task, task.facts(), {"model": str(tmp_path / "taken")}) is None
    assert not (tmp_path / "taken").exists()


def test_markers_of_folders_beside_the_objects_are_not_looked_at(store, storage, task, tmp_path):
    prefix = recorded(store, storage, task, tmp_path)
    for marker in ("", "Format-Serving/", "Format-Serving/assets/"):
        store.write(f"{prefix}/{marker}", b"")
    assert take(storage, task, task.facts(), {"model": str(tmp_path / "taken")})
    assert content(tmp_path / "taken") == content(tmp_path / "made")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"outputs": {"model": {}}}', '{"outputs": {}}'])
def test_a_damaged_record_is_no_result(store, storage, task, tmp_path, text):
    recorded(store, storage, task, tmp_path)
    name = f"{task.folder}/{key_of(task.facts())}.json".removeprefix(f"minio://{object_store.BUCKET}/")
    store.write(name, text.encode())
    assert take(storage, task, task.facts(), {"model": str(tmp_path / "taken")}) is None


def test_a_record_cannot_write_outside_of_an_artifact(store, storage, task, tmp_path):
    recorded(store, storage, task, tmp_path)
    name = f"{task.folder}/{key_of(task.facts())}.json".removeprefix(f"minio://{object_store.BUCKET}/")
    record = json.loads(store.read(name))
    record["outputs"]["model"]["files"][0]["path"] = "../../escaped"
    store.write(name, json.dumps(record).encode())
    with pytest.raises(UserError, match=r"a record names the file '../../escaped'"):
        take(storage, task, task.facts(), {"model": str(tmp_path / "a" / "b" / "taken")})
    assert not list(tmp_path.rglob("escaped"))


def changed_parameter(task, folder):
    config = json.loads(task.parameters["custom_config"]) | {"epochs": 4}
    return replace(task, parameters={**task.parameters, "custom_config": json.dumps(config)})


def changed_bytes(task, folder):
    (folder / "examples" / "Split-train" / "data.gz").write_bytes(b"Records")
    return task


def another_file(task, folder):
    (folder / "examples" / "Split-eval").mkdir()
    (folder / "examples" / "Split-eval" / "data.gz").write_bytes(b"")
    return task


def changed_property(task, folder):
    inputs = copy.deepcopy(task.inputs)
    inputs["examples[0]"][0]["span"] = 1
    return replace(task, inputs=inputs)


def changed_code(task, folder):
    (folder / "some_task.py").write_text(TASK_MODULE.replace("return 2", "return 3"))
    return task


def another_executor(task, folder):
    return replace(task, executor="stillhouse.components.ensemble.executor.Executor")


def changed_outside(task, folder):
    (folder / "schema.pbtxt").write_text("b")
    return replace(task, outside=(str(folder / "schema.pbtxt"),))


CHANGES = {
    changed_parameter: "parameters (custom_config)",
    changed_bytes: "inputs (examples[0])",
    another_file: "inputs (examples[0])",
    changed_property: "inputs (examples[0])",
    changed_code: "code (some_task)",
    another_executor: "code (",
    changed_outside: "outside (",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_task_that_would_do_something_else_runs_and_says_what_has_changed(
    store, storage, task, tmp_path, change, capsys
):
    recorded(store, storage, task, tmp_path)
    other = change(task, tmp_path)
    assert take(storage, other, other.facts(), {"model": str(tmp_path / "taken")}) is None
    assert f"no result of an earlier run: changed since the last: {CHANGES[change]}" in capsys.readouterr().out


def test_what_does_not_concern_a_task_does_not_make_it_run(store, storage, task, tmp_path):
    recorded(store, storage, task, tmp_path)
    (tmp_path / "some_task.py").write_text(TASK_MODULE.replace("return 1", "return 7"))  # the other builder
    metadata = {
        **task.inputs["examples[0]"][0],
        "store_session_info": "{}",
        "display_name": "examples",
        TAKEN_FROM: "x",
    }
    moved = tmp_path / "elsewhere"
    (tmp_path / "examples").rename(moved)
    other = replace(task, inputs={"examples[0]": (metadata, str(moved))})
    assert take(storage, other, other.facts(), {"model": str(tmp_path / "taken")})


def test_soft_targets_of_augmented_views_depend_on_the_tasks_augment(task, tmp_path):
    def facts(augment):
        views = json.dumps({"augment": augment, "task": "some_task"})
        executor = "stillhouse.components.soft_targets.executor.Executor"
        return replace(task, executor=executor, parameters={"views": views}).facts()

    before = facts(True), facts(False)
    changed_code(task, tmp_path)
    assert facts(True) != before[0]
    assert facts(False) == before[1]


def test_two_runs_at_once_leave_one_result_that_is_whole(store, storage, task, tmp_path):
    prefix = recorded(store, storage, task, tmp_path)
    facts, failures = task.facts(), []

    def one(number):
        try:
            for turn in range(3):
                remember(storage, task, facts, {"model": (URI, {}, str(tmp_path / "made"))})
                assert take(storage, task, facts, {"model": str(tmp_path / f"taken-{number}-{turn}")}) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert prefix


def test_the_files_that_a_task_reads_outside_are_known(tmp_path):
    for name in ("span-1/a.csv", "span-2/a.csv", "span-2/b.csv", "other/a.csv", "model/saved_model.pb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    config = json.dumps({"splits": [{"name": "all", "pattern": "span-1/*\nspan-2/*"}]})
    found = outside_files("tfx.X", {"input_base": str(tmp_path), "input_config": config})
    assert found == tuple(str(tmp_path / name) for name in ("span-1/a.csv", "span-2/a.csv", "span-2/b.csv"))
    assert outside_files("tfx.X", {"schema_file": "/data/schema.pbtxt"}) == ("/data/schema.pbtxt",)
    teacher = {"teacher": json.dumps({"path": str(tmp_path / "model")})}
    executor = "stillhouse.components.imported_teacher.executor.Executor"
    assert outside_files(executor, teacher) == (str(tmp_path / "model" / "saved_model.pb"),)
    assert outside_files("tfx.X", {}) == ()


def test_a_storage_that_cannot_be_reached_is_named_with_what_to_do():
    with object_store.serving() as store:
        endpoint = store.endpoint
    storage = ObjectStorage(ROOT, {**environment_of(Storage(endpoint=endpoint)), ACCESS_KEY: "a", SECRET_KEY: "b"})
    with pytest.raises(UserError, match=f"cannot read {ROOT}/x at {endpoint}: .*; correct kubeflow.storage, or set"):
        storage.read(f"{ROOT}/x")


def test_a_bucket_that_does_not_exist_and_wrong_credentials_are_named(store):
    environment = {**environment_of(Storage(endpoint=store.endpoint)), ACCESS_KEY: "key", SECRET_KEY: "secret"}
    with pytest.raises(UserError, match="cannot write minio://nobody/x at http"):
        ObjectStorage("minio://nobody/x", environment).write("minio://nobody/x", b"")
    store.require_credentials()
    with pytest.raises(UserError, match=f"cannot read {ROOT}/x at http"):
        ObjectStorage(ROOT, environment).read(f"{ROOT}/x")


def test_where_the_storage_is_travels_in_the_environment():
    storage = Storage(endpoint="http://minio:9000", region="eu", secret="minio", access_key="a", secret_key="b")
    assert environment_of(storage) == {
        "STILLHOUSE_STORAGE_ENDPOINT": "http://minio:9000",
        "STILLHOUSE_STORAGE_REGION": "eu",
    }
    assert secret_of(storage) == ("minio", {ACCESS_KEY: "a", SECRET_KEY: "b"})
    assert secret_of(Storage()) is None
    with pytest.raises(UserError, match="found 'abfs://b/x'; expected a URI that begins with minio://"):
        ObjectStorage("abfs://b/x", {})
