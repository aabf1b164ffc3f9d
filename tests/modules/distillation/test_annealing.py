import numpy as np
import pytest

from stillhouse.modules.distillation.annealing import value_at
from stillhouse.modules.settings import Schedule


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", [8, 6.5, 5, 3.5, 2]),
        ("cosine", [5 + 3 * np.cos(np.pi * k / 4) for k in range(5)]),
    ],
)
def test_a_schedule_goes_from_start_in_the_first_epoch_to_end_in_the_last(kind, expected):
    schedule = Schedule(start=8.0, end=2.0, schedule=kind)
    assert [value_at(schedule, epoch, 5) for epoch in range(5)] == pytest.approx(expected)


def test_a_training_of_one_epoch_has_the_start():
    assert value_at(Schedule(start=8.0, end=2.0), 0, 1) == 8.0
