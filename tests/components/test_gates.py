import math
from dataclasses import replace

import pytest

from stillhouse.components.blessing.gates import FidelityRule, Gate, decide, decide_fidelity
from stillhouse.components.evaluation import ModelMetrics, metric_name
from stillhouse.components.predictions.fidelity import Fidelity
from stillhouse.components.predictions.paired import PairedChange
from stillhouse.components.serving_check.executor import Served, compare
from stillhouse.components.serving_check.executor import decide as decide_serving


def metrics(overall, **slices):
    found = {"": {"accuracy": overall, "loss": 1 - overall, "example_count": 100.0}}
    for name, (accuracy, count) in slices.items():
        found[f"label={name}"] = {"accuracy": accuracy, "loss": 1 - accuracy, "example_count": float(count)}
    return ModelMetrics(found)


def paired(*metrics_of_models, low=-0.5, high=0.5):
    """Returns an interval for every slice; None on a slice where a metric is not a number."""
    names = set().union(*(each.slices for each in metrics_of_models))
    return {
        name: None
        if any(math.isnan(each.slices.get(name, {}).get("accuracy", 0)) for each in metrics_of_models)
        else PairedChange((low + high) / 2, low, high, 0.5, "bootstrap", 0.95, 100)
        for name in names
    }


def decided(gate, student, other, **more):
    return decide(gate, student, other, **({"paired": paired(student, other)} | more))


SLICED = {"slice_columns": [["label"]]}
DROP = Gate(
    "teacher", "Teacher-1", "accuracy", False, -0.03, min_change_per_slice=-0.10, min_slice_examples=30, **SLICED
)


def test_worse_slice_blocks_the_push():
    student = metrics(0.95, a=(0.99, 50), b=(0.80, 50))
    decision = decided(DROP, student, metrics(0.96, a=(0.97, 50), b=(0.95, 50)))
    assert not decision.passed
    assert "slice label=b: accuracy 0.8000 against 0.9500" in decision.reason


def test_the_worst_of_several_slices_is_named():
    student = metrics(0.95, a=(0.70, 50), b=(0.60, 50))
    decision = decided(DROP, student, metrics(0.96, a=(0.97, 50), b=(0.95, 50)))
    assert decision.reason.startswith("slice label=b")
    assert "(and 1 more slice)" in decision.reason


def test_a_slice_too_small_to_judge_blocks_nothing_and_is_named():
    decision = decided(DROP, metrics(0.95, a=(0.9, 30), b=(0.0, 29)), metrics(0.96, a=(0.9, 30), b=(1.0, 29)))
    assert decision.passed
    assert decision.reason.endswith("1 slice within 0.1; 1 slice not judged, fewer than 30 examples: label=b")
    assert (decision.slices.judged, decision.slices.too_small) == (1, ["label=b"])


def test_a_gate_that_judged_no_slice_does_not_pass():
    student, other = metrics(0.95, b=(0.0, 29)), metrics(0.96, b=(1.0, 29))
    decision = decided(DROP, student, other)
    assert not decision.passed
    assert decision.reason.startswith("no slice could be judged (1 slice not judged, fewer than 30 examples: label=b)")
    allowed = decided(replace(DROP, allow_no_slice=True), student, other)
    assert allowed.passed
    assert "no slice judged; 1 slice not judged" in allowed.reason


def test_without_a_limit_per_slice_the_reason_says_so():
    decision = decided(replace(DROP, min_change_per_slice=None), metrics(0.95), metrics(0.96))
    assert decision.passed
    assert "no slice judged (max_drop_per_slice is null)" in decision.reason


def test_a_column_that_no_example_has_is_a_mistake():
    student = metrics(0.95, **{"(missing)": (0.95, 100)})
    decision = decided(DROP, student, student, empty_columns=["shpo"])
    assert not decision.passed
    assert "no eval example has a value of shpo" in decision.reason


def test_an_undefined_metric_is_never_a_pass():
    defined, undefined = metrics(0.97, a=(0.97, 50)), metrics(0.97, a=(math.nan, 50))
    for student, other in ((undefined, defined), (defined, undefined), (undefined, undefined)):
        decision = decided(DROP, student, other)
        assert not decision.passed
        assert decision.reason.startswith("accuracy is undefined on 1 slice: label=a")
        assert decision.slices.undefined == ["label=a"]
    skipping = replace(DROP, undefined_slices="skip")
    assert not decided(skipping, undefined, defined).passed  # nothing is left
    student, other = metrics(0.97, a=(math.nan, 50), b=(0.9, 50)), metrics(0.97, a=(0.9, 50), b=(0.9, 50))
    decision = decided(skipping, student, other)
    assert decision.passed
    assert decision.reason.endswith("1 slice within 0.1; 1 slice skipped, accuracy undefined: label=a")
    overall = decided(DROP, metrics(math.nan), metrics(0.9))
    assert not overall.passed
    assert overall.reason.startswith("accuracy is undefined on the eval split")
    # TFMA gives 0 for the AUC of one class: what the paired test cannot compute is undefined too.
    decision = decided(DROP, defined, defined, paired=paired(defined) | {"label=a": None})
    assert not decision.passed


def interval(low, high):
    return PairedChange((low + high) / 2, low, high, 0.5, "bootstrap", 0.95, 100)


def test_with_a_confidence_the_lower_end_of_the_interval_has_to_clear_the_limit():
    gate = replace(DROP, confidence=0.95)
    student, other = metrics(0.95, a=(0.95, 50)), metrics(0.96, a=(0.96, 50))
    narrow = {"": interval(-0.02, 0.0), "label=a": interval(-0.05, 0.03)}
    decision = decided(gate, student, other, paired=narrow)
    assert decision.passed
    assert "change -0.0100 (95% interval -0.0200 to +0.0000), allowed drop 0.03" in decision.reason
    assert not decided(gate, student, other, paired=narrow | {"": interval(-0.04, 0.02)}).passed
    wide_slice = decided(gate, student, other, paired=narrow | {"label=a": interval(-0.11, 0.09)})
    assert not wide_slice.passed
    assert "slice label=a" in wide_slice.reason
    assert not decided(gate, student, other, paired=narrow | {"label=a": None}).passed  # nothing is known


RULE = FidelityRule("Ensemble", 0.9, 0.8, 0.2, 30)


@pytest.mark.parametrize(
    ("overall", "slices", "fault"),
    [
        (Fidelity(0.9, 0.2, 100), {"a=1": Fidelity(0.8, 0.1, 30), "a=2": Fidelity(0.0, 9.0, 29)}, None),
        (Fidelity(0.89, 0.2, 100), {"a=1": Fidelity(0.9, 0.1, 30)}, "required agreement 0.9"),
        (Fidelity(0.95, 0.21, 100), {"a=1": Fidelity(0.9, 0.1, 30)}, "allowed KL divergence 0.2"),
        (Fidelity(0.95, math.nan, 100), {"a=1": Fidelity(0.9, 0.1, 30)}, "allowed KL divergence 0.2"),
        (Fidelity(0.95, 0.1, 100), {"a=1": Fidelity(0.7, 0.1, 30)}, "slice a=1: agreement 0.7000, required 0.8"),
        (Fidelity(0.95, 0.1, 100), {"a=1": Fidelity(1.0, 0.1, 29)}, "none could be judged"),
    ],
)
def test_fidelity_has_a_gate_of_its_own(overall, slices, fault):
    decision = decide_fidelity(RULE, overall, slices)
    assert decision.passed == (fault is None)
    assert fault is None or fault in decision.reason


def test_a_drop_of_exactly_the_allowed_size_passes():
    decision = decided(DROP, metrics(0.95, b=(0.85, 50)), metrics(0.96, b=(0.95, 50)))
    assert decision.passed


def test_a_student_that_the_evaluator_does_not_bless_fails_with_both_numbers():
    decision = decided(DROP, metrics(0.90), metrics(0.96))
    assert not decision.passed
    assert (
        decision.reason
        == "accuracy 0.9000 against 0.9600: change -0.0600 (95% interval -0.5000 to +0.5000), allowed drop 0.03"
    )


def test_a_loss_that_rises_is_a_drop():
    gate = Gate("teacher", "Teacher-1", "loss", True, -0.03, min_change_per_slice=-0.10, **SLICED)
    decision = decided(gate, metrics(0.95, b=(0.80, 50)), metrics(0.95, b=(0.95, 50)))
    assert not decision.passed
    assert decided(gate, metrics(0.95, b=(0.95, 50)), metrics(0.95, b=(0.80, 50))).passed


@pytest.mark.parametrize(
    ("min_change", "limit"), [(-0.05, "allowed drop 0.05"), (0.0, "allowed drop 0"), (0.01, "required gain 0.01")]
)
def test_a_reason_has_values_change_and_limit(min_change, limit):
    gate = Gate("teacher", "Teacher-1", "accuracy", False, min_change, min_change_per_slice=-0.10, **SLICED)
    assert decided(gate, metrics(0.97, b=(0.95, 50)), metrics(0.96, b=(0.95, 50))).reason == (
        f"accuracy 0.9700 against 0.9600: change +0.0100 (95% interval -0.5000 to +0.5000), {limit}; 1 slice within 0.1"
    )


def test_nothing_to_compare_with_passes():
    assert decide(Gate("pushed", "Pushed", "accuracy", False, 0.0), metrics(0.1), None, {}).passed


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
