"""comparison.json's `distillation`, from predictions, metrics and the student's card."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from stillhouse.components.predictions.paired import PairedTests
from stillhouse.components.predictions.table import PredictionTable
from stillhouse.components.report.distillation import baseline_of, distillation_of, fidelity_of

EXAMPLES, CLASSES = 1000, 3
RIGHT = {"Ensemble": 900, "Baseline": 700, "Student": 860}  # the first so many examples, of each model
SETTINGS = {
    "data": {"transfer": None},
    "student": {"distillation": {"temperature": {"start": 4.0, "end": 1.0}, "alpha": {"start": 0.9, "end": 0.9}}},
}
LEARNT = {
    "entropy": 0.05,
    "entropy_transfer": None,
    "max_entropy": 1.0986,
    "agreement": 0.99,
    "examples": 1000,
    "soft_gradient_share": 0.7,
    "targets_vary": True,
}


def table_of(right=RIGHT):
    labels = np.arange(EXAMPLES) % CLASSES
    models = {}
    for name, count in right.items():
        predicted = np.where(np.arange(EXAMPLES) < count, labels, (labels + 1) % CLASSES)
        models[name] = (0.05 + 0.85 * np.eye(CLASSES)[predicted]).astype(np.float32)
    return PredictionTable("classification", None, labels, models, {}, None)


def described(table, metric="accuracy", baseline="Baseline", card=None, settings=SETTINGS, reference="Ensemble"):
    tests = PairedTests(table, metric, metric != "accuracy")
    fidelity = fidelity_of(table, reference, [])
    agreement = fidelity["agreement"] if fidelity else None
    card = {"distillation": LEARNT} if card is None else card
    return distillation_of(table, tests, metric, reference, baseline, card, settings, agreement)


def test_gain_gap_and_recovered_share_are_those_of_the_predictions():
    found = described(table_of())
    assert found["gain"]["change"] == pytest.approx(0.16)
    assert found["gain"]["p"] == pytest.approx(binomtest(160, 160).pvalue)
    assert (found["gain"]["metric"], found["gain"]["test"], found["gain"]["verdict"]) == (
        "accuracy",
        "McNemar",
        "better",
    )
    assert found["gap"]["change"] == pytest.approx(0.2)
    assert found["recovered"]["share"] == pytest.approx(0.8)
    # The student is right on 160 of the 200 examples of the gap: a binomial share.
    reach = 1.96 * np.sqrt(0.8 * 0.2 / 200)
    assert found["recovered"]["low"] == pytest.approx(0.8 - reach, abs=0.01)
    assert found["recovered"]["high"] == pytest.approx(0.8 + reach, abs=0.01)
    assert found["fidelity"] == {"train": 0.99, "eval": pytest.approx(0.96)}
    assert (found["entropy"], found["max_entropy"], found["soft_gradient_share"]) == (0.05, 1.0986, 0.7)
    assert found["diagnosis"][0].startswith("The student is better than Baseline by 0.1600 accuracy and recovers 80%")
    json.dumps(found, allow_nan=False)


def test_without_a_gap_there_is_a_reason_and_nothing_to_transfer():
    found = described(table_of(RIGHT | {"Ensemble": 701, "Student": 700}))
    assert found["recovered"] is None
    assert found["recovered_reason"].startswith("Ensemble is not shown to be better than Baseline")
    assert "nothing to transfer" in found["diagnosis"][0]


def test_a_run_without_baseline_or_with_an_older_card_is_described_as_far_as_it_is_known():
    found = described(table_of({name: RIGHT[name] for name in ("Ensemble", "Student")}), baseline=None, card={})
    assert (found["gain"], found["gap"], found["recovered"]) == (None, None, None)
    assert found["recovered_reason"] == "there is no baseline"
    assert (found["entropy"], found["fidelity"]["train"]) == (None, None)
    assert "set evaluation.gates.baseline" in found["diagnosis"][0]


@pytest.mark.parametrize("more", [{"transfer": "unlabelled"}, {"views": {"augment": True}}])
def test_sure_teachers_are_no_diagnosis_where_inputs_are_unlabelled_or_new(more):
    table = table_of(RIGHT | {"Student": 705})
    card = {"distillation": LEARNT | {"entropy": 0.01, "agreement": 0.95}}
    assert any("repeat the labels" in line for line in described(table, card=card)["diagnosis"])
    settings = SETTINGS | {"data": {"transfer": more.get("transfer")}}
    lines = described(table, card=card | {"views": more.get("views")}, settings=settings)["diagnosis"]
    assert not any("repeat the labels" in line for line in lines)


def test_a_regression_of_one_teacher_has_a_gain_and_no_entropy():
    random = np.random.default_rng(0)
    labels = random.normal(size=EXAMPLES)
    errors = {"Teacher-1": 0.1, "Baseline": 0.5, "Student": 0.2}
    models = {
        name: (labels + error * random.normal(size=EXAMPLES)).astype(np.float32) for name, error in errors.items()
    }
    table = PredictionTable("regression", None, labels, models, {}, None)
    card = {
        "distillation": dict.fromkeys(LEARNT) | {"examples": 1000, "soft_gradient_share": 0.7, "targets_vary": True}
    }
    found = described(table, "mean_absolute_error", card=card, reference="Teacher-1")
    assert found["gain"]["change"] == pytest.approx(0.24, abs=0.03)  # mean of |N(0, 1)| is 0.8
    assert found["recovered"]["share"] == pytest.approx(0.75, abs=0.05)
    assert found["fidelity"] == {"train": None, "eval": None}
    assert len(found["diagnosis"]) == 1


def test_the_baselines_treatment_is_from_both_cards():
    views = {"augment": True}
    settings = {"baseline": {"optimizer": {"name": "adam"}, "seed": None}}
    found = baseline_of({"updates": 100, "views": {}}, {"updates": 2820, "views": views}, settings)
    assert found == {
        "updates": 100,
        "student_updates": 2820,
        "validation": None,
        "views": {},
        "student_views": views,
        "own": {"optimizer": {"name": "adam"}},
    }


def test_the_students_updates_are_those_of_both_stages():
    student = {"updates": 30, "first_stage_updates": 120}
    assert baseline_of({"updates": 150}, student, {})["student_updates"] == 150
