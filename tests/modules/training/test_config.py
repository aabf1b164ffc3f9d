"""What a training needs, as it travels: custom_config of a Trainer, and the job file of a cluster."""

import json
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from stillhouse.modules.training.config import TrainingConfig, identity_of

NEEDED = {"name": "Student", "role": "student", "task": "task", "label": "label"}
DISTILLATION = {
    "objective": "kl_divergence",
    "temperature": {"start": 4.0, "end": 1.0, "schedule": "cosine"},
    "alpha": 0.9,
    "hints": [{"teacher_layer": "a", "student_layer": "b"}],
    "ensemble": {"weights": [1.0, 2.0]},
    "head_per_teacher": True,
}
FN_ARGS = SimpleNamespace(train_files=["train"], eval_files=["eval"], transform_graph_path="graph", base_model=None)


def config(**changes) -> TrainingConfig:
    return TrainingConfig.model_validate(NEEDED | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "distillation": DISTILLATION,
            "strategy": {"name": "parameter_server"},
            "ingestion": {"cache": "disk"},
            "shard": {"index": 1, "of": 3},
        },
        {
            "start": {"pretraining": "large", "layers": {"layer_0": "layer_1"}},
            "masking": {"share": 0.2, "label": "x"},
            "parallelism": {"stages": 2, "balance": [3, 4], "processes": True},
            "memory": {"swap": ["first"]},
        },
    ],
)
def test_a_training_is_its_json(changes):
    training = config(**changes)
    assert TrainingConfig.model_validate(json.loads(json.dumps(training.model_dump(mode="json")))) == training


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"epoks": 3}, "epoks"),
        ({"epochs": "3"}, "epochs"),
        ({"distillation": DISTILLATION | {"alpha": 1.5}}, "distillation.alpha"),
        ({"ingestion": {"cache": "tape"}}, "ingestion.cache"),
    ],
)
def test_a_job_file_that_was_written_by_hand_is_checked_as_settings_are(changes, key):
    with pytest.raises(ValidationError) as caught:
        config(**changes)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == key


def test_what_the_processes_of_a_training_are_to_each_other():
    assert config().cluster_kind is None
    assert config(strategy={"name": "multi_worker_mirrored"}).cluster_kind == "multi_worker_mirrored"
    assert config(parallelism={"stages": 2, "processes": True}).cluster_kind == "stage"


def test_a_network_has_a_head_for_each_teacher_where_that_is_asked():
    assert config().heads == 1
    assert config(distillation=DISTILLATION).heads == 2


def test_a_training_keeps_its_identity_wherever_it_runs():
    identity = identity_of(config(), FN_ARGS)
    elsewhere = config(strategy={"name": "mirrored", "devices": 2}, loop="custom", checkpoint_folder="elsewhere")
    assert identity_of(elsewhere, FN_ARGS) == identity
    assert identity_of(config(distillation=DISTILLATION), FN_ARGS) != identity
