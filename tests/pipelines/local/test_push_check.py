"""What is said about the push folder before the training jobs."""

import json
import os

import blobs
import pytest
import tensorflow as tf
from artifacts import network, save

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes.versions import LARGEST_NUMBER, model_fingerprint
from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.local.push_check import check_push


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Checks the blobs settings with changes, in a project's folder."""
    monkeypatch.chdir(tmp_path)
    return lambda **changes: check_push(parse_settings(blobs.settings(**changes), "x.yaml"))


@pytest.fixture
def serving(tmp_path):
    (tmp_path / "serving").mkdir()
    return tmp_path / "serving"


def without_gate(raw=None):
    return {"gates": {"pushed": None}}


def comparable(folder, label="tree"):
    """Saves a model with the signature by which an evaluation reads labels."""
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.string)
    module.labels = tf.function(lambda examples: {f"transformed_{label}": tf.strings.length(examples)}, [spec])
    tf.saved_model.save(module, str(folder), signatures={"transformed_labels": module.labels})
    record = folder / "assets.extra" / "push.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"fingerprint": model_fingerprint(str(folder))}))


def test_a_missing_folder_and_versions_of_ours_pass(check, serving):
    check(push={"path": "missing/below"})
    check()
    comparable(serving / "8")
    save(network(), serving / "7")  # of another system, but not what is served
    (serving / "9").mkdir()  # nothing that a server can load
    check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: save(network(), folder), "not made by stillhouse .it has no signature transformed_labels"),
        (
            lambda folder: (folder.mkdir(), (folder / "saved_model.pb").write_bytes(b"\xff\xfe")),
            "not a readable SavedM",
        ),
        (lambda folder: comparable(folder, "species"), "of another label .transformed_species; expected transformed_t"),
    ],
)
def test_a_newest_version_that_cannot_be_compared_with_is_refused_if_the_gate_is_set(check, serving, make, message):
    make(serving / "007")
    with pytest.raises(UserError, match=f"{serving}/007: the newest version, but {message}.*gates.pushed: null"):
        check()
    check(evaluation=without_gate())


def test_a_damaged_newest_version_is_refused_if_the_gate_is_set(check, serving):
    comparable(serving / "8")
    os.truncate(serving / "8" / "saved_model.pb", 10)
    with pytest.raises(MachineError, match=f"{serving}/8: the version is damaged .*stillhouse rollback"):
        check()
    check(evaluation=without_gate())


def test_a_folder_without_a_free_number_is_refused(check, serving):
    (serving / str(LARGEST_NUMBER)).mkdir()
    with pytest.raises(UserError, match=f"{LARGEST_NUMBER} has the largest number that a model server reads"):
        check()


def test_a_folder_that_cannot_be_written_is_refused(check, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below"):
        with pytest.raises(UserError, match=f"push.path: {tmp_path}/file is not a folder; set another push.path"):
            check(push={"path": path})
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
    with pytest.raises(UserError, match=f"push.path: {tmp_path} cannot be written: permission denied"):
        check()


def test_links_in_the_place_of_kept_teachers_are_refused_where_teachers_are_kept(check, serving, tmp_path):
    (serving / ".teachers").symlink_to(tmp_path)
    check()
    with pytest.raises(UserError, match=f"{serving}/.teachers: found a symbolic link .to {tmp_path}"):
        check(teachers=[{"warm_start": True}])
