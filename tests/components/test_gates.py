import pytest

from stillhouse.components.blessing.gates import Gate, decide
from stillhouse.components.evaluation import ModelMetrics, metric_name
from stillhouse.components.serving_check.executor import Served, compare
from stillhouse.components.serving_check.executor import decide as decide_serving


def metrics(overall, **slices):
    found = {"": {"accuracy": overall, "loss": 1 - overall, "example_count": 100.0}}
    for name, (accuracy, count) in slices.items():
        found[f"label={name}"] = {"accuracy": accuracy, "loss": 1 - accuracy, "example_count": float(count)}
    return ModelMetrics(found)


DROP = Gate("teacher", "accuracy", False, -0.03, min_change_per_slice=-0.10, min_slice_examples=30)


def test_worse_slice_blocks_the_push():
    student = metrics(0.95, a=(0.99, 50), b=(0.80, 50))
    decision = decide(DROP, True, student, metrics(0.96, a=(0.97, 50), b=(0.95, 50)))
    assert not decision.passed
    assert "slice label=b: accuracy 0.8000 against 0.9500" in decision.reason


def test_the_worst_of_several_slices_is_named():
    student = metrics(0.95, a=(0.70, 50), b=(0.60, 50))
    decision = decide(DROP, True, student, metrics(0.96, a=(0.97, 50), b=(0.95, 50)))
    assert decision.reason.startswith("slice label=b")
    assert "(and 1 more slice)" in decision.reason


def test_a_slice_too_small_to_judge_blocks_nothing():
    decision = decide(DROP, True, metrics(0.95, b=(0.0, 29)), metrics(0.96, b=(1.0, 29)))
    assert decision.passed


def test_a_drop_of_exactly_the_allowed_size_passes():
    decision = decide(DROP, True, metrics(0.95, b=(0.85, 50)), metrics(0.96, b=(0.95, 50)))
    assert decision.passed


def test_a_student_that_the_evaluator_does_not_bless_fails_with_both_numbers():
    decision = decide(DROP, False, metrics(0.90), metrics(0.96))
    assert not decision.passed
    assert decision.reason == "accuracy 0.9000 against 0.9600: change -0.0600, allowed drop 0.03"


def test_a_loss_that_rises_is_a_drop():
    gate = Gate("teacher", "loss", True, -0.03, min_change_per_slice=-0.10)
    decision = decide(gate, True, metrics(0.95, b=(0.80, 50)), metrics(0.95, b=(0.95, 50)))
    assert not decision.passed
    assert decide(gate, True, metrics(0.95, b=(0.95, 50)), metrics(0.95, b=(0.80, 50))).passed


@pytest.mark.parametrize(
    ("min_change", "reason"),
    [
        (-0.05, "accuracy 0.9500 against 0.9600: change -0.0100, allowed drop 0.05; 1 slice within 0.1"),
        (0.0, "accuracy 0.9500 against 0.9600: change -0.0100, allowed drop 0; 1 slice within 0.1"),
        (0.01, "accuracy 0.9500 against 0.9600: change -0.0100, required gain 0.01; 1 slice within 0.1"),
    ],
)
def test_a_reason_has_values_change_and_limit(min_change, reason):
    gate = Gate("teacher", "accuracy", False, min_change, min_change_per_slice=-0.10)
    assert decide(gate, True, metrics(0.95, b=(0.95, 50)), metrics(0.96, b=(0.95, 50))).reason == reason


def test_nothing_to_compare_with_passes():
    assert decide(Gate("pushed", "accuracy", False, 0.0), False, metrics(0.1), None).passed


@pytest.mark.parametrize(
    ("served", "difference"),
    [
        ({}, None),
        ({"example_count": 99}, "served 99 examples, evaluated 100"),
        ({"accuracy": 0.94}, "accuracy served 0.940000, evaluated 0.950000"),
        ({"loss": 0.06}, "loss served 0.060000, evaluated 0.050000"),
    ],
)
def test_serving_check_tells_what_differs(served, difference):
    evaluated = {"example_count": 100.0, "accuracy": 0.95, "loss": 0.05}
    assert compare({"example_count": 100, "accuracy": 0.95, "loss": 0.05} | served, evaluated) == difference


def test_a_model_that_cannot_be_served_is_refused_with_its_last_words():
    passed, reason = decide_serving(Served(None, refused="OSError: no such file"), metrics(0.9))
    assert not passed
    assert "OSError: no such file" in reason


def test_metric_names():
    assert metric_name("SparseCategoricalAccuracy") == "accuracy"
    assert metric_name("MeanLabel") == "mean_label"
