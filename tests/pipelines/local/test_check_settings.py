"""What is checked before anything runs."""

import sys

import blobs
import pytest
from artifacts import network, save
from rich.console import Console

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.local import run as local
from stillhouse.pipelines.local.check import check_settings
from stillhouse.pipelines.local.run_view import RunView


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """Returns the blobs settings with changes, in a project's folder."""
    blobs.write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("blobs_task", None)
    task = tmp_path / "blobs_task.py"
    task.write_text(task.read_text() + "\n\ndef build_wide(classes=4):\n    return network(4, classes)\n")
    task.write_text(task.read_text().replace("def network(units):", "def network(units, classes=3):"))
    task.write_text(task.read_text().replace("keras.layers.Dense(3)(hidden)", "keras.layers.Dense(classes)(hidden)"))
    yield lambda **changes: parse_settings(blobs.settings(**changes), "x.yaml")
    sys.modules.pop("blobs_task", None)


@pytest.fixture
def check(parsed):
    """Checks the blobs settings with changes."""
    return lambda **changes: check_settings(parsed(**changes))


def test_what_is_right_passes(check):
    check(teachers=[{"copies": 2}, {"builder": "build_student"}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teachers": [{"copies": 2}, {"builder": "build_wide"}]},
            "differ: Teacher-1 3, Teacher-2 3, Teacher-3 4, the student 3",
        ),
        ({"student": {"omit_classes": [7]}}, "student.omit_classes: found 7; expected class ids below 3"),
        ({"student": {"omit_classes": [0, 1, 2]}}, "student.omit_classes: found all 3 classes; nothing would be left"),
        (
            {"student": {"distillation": {"targets_top": 3}}},
            "student.distillation.targets_top: found 3; expected less than 3 .classes.; lower it",
        ),
        ({"evaluation": {"slices": ["shop"]}}, "evaluation.slices: the data have no column 'shop'"),
        ({"teachers": [{"builder": "build_giant"}]}, "the task module 'blobs_task' has no function 'build_giant'"),
        (
            {"teachers": [{"parallelism": {"stages": 9}}]},
            "Teacher-1: parallelism.stages: found 9; expected at most 2 .layers.",
        ),
        (
            {"student": {"memory": {"rematerialise": ["nowhere"]}}},
            "Student: found 'nowhere' to cut after; expected one of: ",
        ),
        (
            {"student": {"memory": {"swap": "auto"}}},
            "Student: memory.swap: needs a GPU; found the CPU, whose memory is the host's",
        ),
        ({"teachers": [{"saved_model": "nowhere"}]}, r"Teacher-1 .teachers.*: no SavedModel in this folder"),
        ({"teachers": [{"augment": True}]}, r"has no function augment\(features, seed\)"),
        ({"student": {"noise": {"size": 0.1}}}, r"student.noise: found the feature 'size'; expected one of: features"),
        ({"teachers": [{"swap": {"size": 0.1}}]}, r"teachers\[0\].swap: found the feature 'size'; expected one of"),
        ({"student": {"distillation": {"objective": "blobs_task.loss"}}}, "'blobs_task' has no function 'loss'"),
        (
            {"student": {"distillation": {"hints": [{"teacher_layer": "deep", "student_layer": "deep"}]}}},
            "found 'deep'; expected a layer of Teacher-1: features, dense",
        ),
        (
            {"data": {"path": "data", "label": "tree", "transfer": "nowhere"}},
            "data.transfer: no files in nowhere",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(check, changes, message):
    with pytest.raises(UserError, match=message):
        check(**changes)


def test_a_saved_model_of_other_classes_is_told_before_anything_runs(check, tmp_path):
    save(network(units=5), tmp_path / "five")
    with pytest.raises(UserError, match="differ: Teacher-1 5, the student 3"):
        check(teachers=[{"saved_model": "five", "signature": "serving_default"}])


@pytest.mark.parametrize("link", [".lock", "metadata.sqlite", "artifacts", "artifacts/Student", "artifacts/x/model/7"])
def test_a_run_writes_through_no_link_below_its_root(parsed, tmp_path, link):
    root, elsewhere = tmp_path / "runs" / "blobs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(elsewhere)
    with pytest.raises(UserError, match=f"^{root}/{link}: found a symbolic link .to {elsewhere}.; .*remove the link"):
        local.run(parsed(), root, RunView(Console(stderr=True), quiet=True))
    assert not list(elsewhere.iterdir())


def test_dark_knowledge_takes_the_place_of_a_link_and_goes_without_following_it(tmp_path):
    elsewhere, source, folder = tmp_path / "elsewhere", tmp_path / "source", tmp_path / "dark_knowledge"
    for path in (elsewhere, source):
        path.mkdir()
        (path / "kept").write_text(path.name)
    for replacement in (None, str(source)):
        folder.symlink_to(elsewhere)
        local._replace_folder(folder, replacement)
        assert not folder.is_symlink()
    assert (folder / "kept").read_text() == "source"
    assert (elsewhere / "kept").read_text() == "elsewhere"


def test_a_damaged_metadata_store_is_told_before_anything_runs(parsed, tmp_path):
    root = tmp_path / "runs" / "blobs"
    root.mkdir(parents=True)
    (root / "metadata.sqlite").write_text("no database, " * 100)
    with pytest.raises(MachineError, match=f"^{root}/metadata.sqlite: the metadata store is corrupt "):
        local.run(parsed(), root, RunView(Console(stderr=True), quiet=True))


@pytest.mark.parametrize("name", ["runs [1]", "all*", "what?", "a\\b", "a\nb", "a\x1b[31m"])
def test_a_root_that_tfx_takes_for_a_pattern_is_told_before_it_is_made(parsed, tmp_path, name):
    with pytest.raises(UserError, match=r"^--root: found '.*'; expected a path without \* \? \[ \]"):
        local.run(parsed(), tmp_path / name / "blobs", RunView(Console(stderr=True), quiet=True))
    assert not (tmp_path / name).exists()
