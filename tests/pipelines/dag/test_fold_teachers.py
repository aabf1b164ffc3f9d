"""The nodes of out-of-fold targets."""

import json

import blobs
import pytest

from stillhouse.modules.settings import parse_settings
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.local.paths import local_paths

HINT = {"teacher": 2, "teacher_layer": "dense", "student_layer": "dense"}


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """The nodes of two teachers with three folds, by name."""
    blobs.write_project(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    student = {"distillation": {"folds": 3, "hints": [HINT]}}
    settings = parse_settings(blobs.settings(teachers=[{"copies": 2, "seed": 5}], student=student), "x")
    return {node.id: node for node in create_pipeline(settings, local_paths(settings, tmp_path)).components}


def config_of(node):
    return TrainingConfig.model_validate(json.loads(node.exec_properties["custom_config"]))


def test_a_fold_teacher_is_its_teacher_but_for_the_fold(nodes):
    for teacher in ("Teacher-1", "Teacher-2"):
        expected = config_of(nodes[teacher])
        assert expected.held_out is None
        for number in (1, 2, 3):
            config = config_of(nodes[f"{teacher}.fold-{number}"])
            assert config.held_out.model_dump() == {"index": number - 1, "of": 3}
            own = {"name": config.name, "held_out": config.held_out, "checkpoint_folder": config.checkpoint_folder}
            assert config == expected.model_copy(update=own)
            assert config.checkpoint_folder != expected.checkpoint_folder
    assert config_of(nodes["Teacher-2.fold-3"]).hidden_layers == ["dense"]


def test_soft_targets_ask_the_folds_teachers_teacher_by_teacher_and_nothing_else_does(nodes):
    inputs = nodes["SoftTargets"].inputs
    producers = [inputs[f"fold_{number}"].producer_component_id for number in range(1, 7)]
    assert producers == [f"Teacher-{teacher}.fold-{fold}" for teacher in (1, 2) for fold in (1, 2, 3)]
    readers = [
        name
        for name, node in nodes.items()
        if any("fold" in channel.producer_component_id for channel in node.inputs.values())
    ]
    assert readers == ["SoftTargets"]
