"""What the SoftTargets of a pipeline are told about the student's views."""

import json

import blobs
import pytest

from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.local.paths import local_paths


@pytest.fixture
def node_of(tmp_path, monkeypatch):
    """Returns a node of the blobs pipeline with a changed student."""
    blobs.write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def node(name, student, **changes):
        settings = parse_settings(blobs.settings(student=student, **changes), "x.yaml")
        return next(
            node for node in create_pipeline(settings, local_paths(settings, tmp_path)).components if node.id == name
        )

    return node


def test_the_students_changes_go_to_the_soft_targets(node_of):
    student = {"seed": 7, "mixup": 0.5, "noise": {"features": 0.1}, "distillation": {"views": 4}}
    told = json.loads(node_of("SoftTargets", student).exec_properties["views"])
    assert told == {
        "augment": False,
        "noise": {"features": 0.1},
        "swap": None,
        "mixup": 0.5,
        "count": 4,
        "seed": 7,
        "task": "blobs_task",
        "code": "",
    }
    trained = json.loads(node_of("Student", student).exec_properties["custom_config"])
    assert (trained["mixup"], trained["noise"]) == (0.5, {"features": 0.1})


def test_a_change_of_the_tasks_augment_changes_the_node(node_of, tmp_path):
    task = tmp_path / "blobs_task.py"
    task.write_text(task.read_text() + "\n\ndef augment(features, seed):\n    return features\n")
    codes = [json.loads(node_of("SoftTargets", {"augment": True}).exec_properties["views"])["code"]]
    task.write_text(task.read_text() + "\n\ndef build_other():\n    return None\n")
    task.write_text(task.read_text().replace("return features", "return dict(features)"))
    codes.append(json.loads(node_of("SoftTargets", {"augment": True}).exec_properties["views"])["code"])
    assert all(codes)
    assert codes[0] != codes[1]


@pytest.mark.parametrize(
    "student",
    [
        {},
        {"noise": 0.1, "distillation": {"targets": "online"}},
    ],
)
def test_unchanged_inputs_and_online_teachers_have_no_views(node_of, student):
    assert json.loads(node_of("SoftTargets", student).exec_properties["views"]) is None


def test_pseudo_labels_are_of_the_unchanged_examples(node_of, tmp_path):
    blobs.write_csv(tmp_path / "more" / "more.csv", blobs.rows(20))
    data = blobs.settings()["data"] | {"transfer": "more"}
    distillation = {"alpha": 1, "temperature": 1, "pseudo_labels": {}}
    node = node_of("SoftTargets", {"noise": 0.1, "distillation": distillation}, data=data)
    assert json.loads(node.exec_properties["views"]) is None
