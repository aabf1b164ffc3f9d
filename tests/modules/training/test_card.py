"""What a model card says of the stages of a student."""

from types import SimpleNamespace

import pytest

from stillhouse.modules.models.card import write_card
from stillhouse.modules.settings import Start
from stillhouse.modules.training.card import first_stage_updates
from stillhouse.modules.training.config import TrainingConfig


@pytest.mark.parametrize(("start", "updates"), [("Student.pretraining", 120), ("language", 0), (None, 0)])
def test_only_a_first_stage_on_soft_targets_adds_to_the_students_updates(tmp_path, start, updates):
    write_card(str(tmp_path), {"updates": 120})
    more = {"start": Start(pretraining=start)} if start else {}
    config = TrainingConfig(name="Student", role="student", task="t", label="y", **more)
    plan = SimpleNamespace(config=config, fn_args=SimpleNamespace(base_model=str(tmp_path)))
    assert first_stage_updates(plan) == updates
