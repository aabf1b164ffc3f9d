"""The table of predictions, and what is computed from it, against independent calculations."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, roc_auc_score

from stillhouse.components.predictions import paired
from stillhouse.components.predictions.fidelity import fidelity, never_predicted
from stillhouse.components.predictions.paired import PairedTests, unit_values
from stillhouse.components.predictions.table import PredictionsWriter, PredictionTable, read_predictions


def probabilities(random, labels, sharpness, classes=3):
    logits = random.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += sharpness
    weights = np.exp(logits)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def table_of(count=400, classes=3, seed=0, **sharpness):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    models = {name: probabilities(random, labels, value, classes) for name, value in sharpness.items()}
    return PredictionTable("classification", None, labels, models, {}, None)


def test_a_table_is_read_as_it_was_written_with_classes_in_the_students_order(tmp_path):
    class_names = {"Student": ["ash", "oak"], "Pushed": ["oak", "elm", "ash"]}
    answers = {
        "Student": np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]),
        "Pushed": np.array([[0.2, 0.1, 0.7], [0.3, 0.6, 0.1], [0.0, 0.0, 1.0]]),
    }
    slices = {"shop": [["a"], ["(missing)"], ["a", "b"]]}
    folder = str(tmp_path / "uri")  # which nobody has made, as on Kubeflow
    with PredictionsWriter(folder, "classification", class_names, ["shop"]) as writer:
        for rows in (slice(0, 2), slice(2, 3)):
            writer.write(
                np.array([0, 1, 1])[rows],
                {name: values[rows] for name, values in answers.items()},
                {"shop": slices["shop"][rows]},
                ["q", "q", "r"][rows],
            )
    table = read_predictions(folder)
    assert table.classes == ["ash", "oak", "elm"]
    assert table.labels.tolist() == [0, 1, 1]
    np.testing.assert_allclose(table.models["Student"], [[0.9, 0.1, 0], [0.4, 0.6, 0], [0.5, 0.5, 0]], rtol=1e-6)
    np.testing.assert_allclose(table.models["Pushed"], [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [1, 0, 0]], rtol=1e-6)
    assert table.queries.tolist() == ["q", "q", "r"]
    rows = {name: positions.tolist() for name, positions in table.slice_rows([["shop"]]).items()}
    assert rows == {"shop=a": [0, 2], "shop=(missing)": [1], "shop=b": [2]}
    assert table.empty_columns() == []
    assert table.part(np.array([1])).empty_columns() == ["shop"]


def test_several_labels_and_numbers_survive_the_table(tmp_path):
    for folder, head, labels, answers in (
        ("m", "multi_label", np.array([[1, 0], [0, 0]]), np.array([[0.7, 0.2], [0.1, 0.4]])),
        ("r", "regression", np.array([1.5, -2.0]), np.array([[1.0], [-1.0]])),
    ):
        (tmp_path / folder).mkdir()
        with PredictionsWriter(str(tmp_path / folder), head, {"Student": None}, []) as writer:
            writer.write(labels, {"Student": answers}, {}, None)
        table = read_predictions(str(tmp_path / folder))
        np.testing.assert_array_equal(table.labels, labels)
        np.testing.assert_allclose(table.models["Student"], np.squeeze(answers), rtol=1e-6)


def test_p_of_accuracy_is_mcnemars_exact_one():
    labels = np.zeros(30, int)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    # 9 examples only the student has right, 2 only the other, 19 both.
    models = {"Student": [right] * 9 + [wrong] * 2 + [right] * 19, "Other": [wrong] * 9 + [right] * 21}
    models = {name: np.array(answers, np.float32) for name, answers in models.items()}
    table = PredictionTable("classification", None, labels, models, {}, None)
    change = PairedTests(table, "accuracy", False).change("Student", "Other")
    assert change.change == pytest.approx(7 / 30)
    assert change.test == "McNemar"
    assert change.p == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert change.verdict == "better"


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_the_bootstrap_agrees_with_the_normal_approximation(metric, monkeypatch):
    table = table_of(2000, Student=1.2, Other=1.0)
    tests = PairedTests(table, metric, metric == "loss")
    bootstrap = tests.change("Student", "Other", 0.9)
    values = unit_values(table, "Student", metric) - unit_values(table, "Other", metric)
    values *= -1 if metric == "loss" else 1
    reach = norm.ppf(0.95) * values.std(ddof=1) / math.sqrt(len(values))
    assert bootstrap.low == pytest.approx(values.mean() - reach, abs=0.15 * reach)
    assert bootstrap.high == pytest.approx(values.mean() + reach, abs=0.15 * reach)
    monkeypatch.setattr(paired, "NORMAL_UNITS", 100)
    normal = PairedTests(table, metric, metric == "loss").change("Student", "Other", 0.9)
    assert normal.low == pytest.approx(values.mean() - reach)
    assert normal.change == bootstrap.change


@pytest.mark.parametrize("metric", ["accuracy", "loss", "auc"])
def test_the_recovered_share_of_the_gap_is_resampled_with_all_three_models(metric):
    table = table_of(600, classes=2, Student=1.6, Baseline=0.5, Ensemble=2.5)
    recovered, reason = PairedTests(table, metric, metric == "loss").recovered("Student", "Baseline", "Ensemble")
    assert reason is None

    def share(rows):
        part = table.part(rows)
        if metric == "auc":
            values = {name: roc_auc_score(part.labels, answers[:, 1]) for name, answers in part.models.items()}
        else:
            values = {name: unit_values(part, name, metric).mean() for name in part.models}
        return (values["Student"] - values["Baseline"]) / (values["Ensemble"] - values["Baseline"])

    random = np.random.default_rng(3)
    draws = [share(random.integers(0, 600, 600)) for _ in range(400)]
    assert recovered.share == pytest.approx(share(np.arange(600)), rel=1e-4)
    assert recovered.low == pytest.approx(np.quantile(draws, 0.025), abs=0.06)
    assert recovered.high == pytest.approx(np.quantile(draws, 0.975), abs=0.06)


def test_a_gap_that_is_not_shown_has_no_share():
    table = table_of(100, Student=1.0, Baseline=1.0, Ensemble=1.01)
    recovered, reason = PairedTests(table, "accuracy", False).recovered("Student", "Baseline", "Ensemble")
    assert recovered is None
    assert reason.startswith("Ensemble is not shown to be better than Baseline: accuracy ")


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of models that are equally good, 95 % intervals hold no change in about 95 of 100 draws of the examples."""
    held = 0
    for seed in range(100):
        change = PairedTests(table_of(60, seed=seed, Student=1.0, Other=1.0), "loss", True).change("Student", "Other")
        held += change.low <= 0 <= change.high
    assert 87 <= held <= 100


def test_unit_values_have_the_metric_as_their_mean():
    table = table_of(50, Student=1.0)
    answers, labels = table.models["Student"].astype(float), table.labels
    assert unit_values(table, "Student", "accuracy").mean() == np.mean(answers.argmax(1) == labels)
    nll = -np.mean([math.log(answers[row, label]) for row, label in enumerate(labels)])
    assert unit_values(table, "Student", "loss").mean() == pytest.approx(nll)
    regression = PredictionTable(
        "regression", None, np.array([1.0, 2.0]), {"Student": np.array([0.0, 4.0], np.float32)}, {}, None
    )
    assert unit_values(regression, "Student", "mean_absolute_error").tolist() == [1.0, 2.0]
    assert unit_values(regression, "Student", "loss").tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("metric", "reference"), [("auc", roc_auc_score), ("auc_precision_recall", average_precision_score)]
)
def test_areas_are_those_of_scikit_learn_and_are_resampled(metric, reference):
    table = table_of(300, classes=2, Student=1.0, Other=0.5)
    rounded = {name: np.round(answers, 1) for name, answers in table.models.items()}  # many ties
    table = PredictionTable("classification", None, table.labels, rounded, {}, None)
    change = PairedTests(table, metric, False).change("Student", "Other")
    expected = [reference(table.labels, table.models[name][:, 1]) for name in ("Student", "Other")]
    assert change.change == pytest.approx(expected[0] - expected[1], abs=1e-6)
    random = np.random.default_rng(5)
    draws = []
    for _ in range(500):
        rows = random.integers(0, 300, 300)
        ours, theirs = (reference(table.labels[rows], rounded[name][rows, 1]) for name in ("Student", "Other"))
        draws.append(ours - theirs)
    assert change.low == pytest.approx(np.quantile(draws, 0.025), abs=0.02)
    assert change.high == pytest.approx(np.quantile(draws, 0.975), abs=0.02)


def test_the_area_of_class_one_is_not_changed_by_a_class_that_only_the_pushed_version_knows():
    table = table_of(100, classes=2, Student=1.0, Other=0.5)
    more = {name: np.pad(answers, ((0, 0), (0, 1))) for name, answers in table.models.items()}
    wider = PredictionTable("classification", None, table.labels, more, {}, None)
    tests = [PairedTests(each, "auc", False).change("Student", "Other") for each in (table, wider)]
    assert tests[0] == tests[1]


def test_an_area_of_one_class_is_undefined():
    table = table_of(40, classes=2, Student=1.0, Other=0.5)
    assert PairedTests(table.part(np.flatnonzero(table.labels == 1)), "auc", False).change("Student", "Other") is None


def test_a_ranking_is_resampled_by_queries():
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.7, 0.3], np.float32)
    models = {"Student": np.stack([1 - scores, scores], 1), "Other": np.stack([scores, 1 - scores], 1)}
    table = PredictionTable(
        "classification", None, np.array([1, 0, 0, 1, 0, 0]), models, {}, np.array(["a", "a", "b", "b", "c", "c"])
    )
    assert unit_values(table, "Student", "mean_reciprocal_rank").tolist() == [1.0, 1.0]
    assert unit_values(table, "Other", "mean_reciprocal_rank").tolist() == [0.5, 0.5]
    change = PairedTests(table, "mean_reciprocal_rank", False).change("Student", "Other")
    assert (change.change, change.units) == (0.5, 2)


def test_fidelity_is_agreement_and_divergence_from_the_teacher():
    student = np.array([[0.5, 0.5, 0.0], [0.2, 0.7, 0.1]], np.float32)
    teacher = np.array([[0.9, 0.1, 0.0], [0.1, 0.1, 0.8]], np.float32)
    table = PredictionTable("classification", None, np.array([0, 1]), {"Student": student, "T": teacher}, {}, None)
    result = fidelity(table, "T")
    assert result.agreement == 0.5
    expected = [
        0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5),
        0.1 * math.log(0.1 / 0.2) + 0.1 * math.log(0.1 / 0.7) + 0.8 * math.log(0.8 / 0.1),
    ]
    assert result.kl == pytest.approx(np.mean(expected), abs=1e-5)
    assert never_predicted(table, "T") == {"2": (1, 0)}
    assert (
        fidelity(
            PredictionTable("classification", None, table.labels, {"Student": teacher, "T": teacher}, {}, None), "T"
        ).kl
        == 0
    )


def test_fidelity_of_several_labels_is_of_their_decisions():
    student, teacher = np.array([[0.6, 0.4]], np.float32), np.array([[0.9, 0.8]], np.float32)
    table = PredictionTable("multi_label", None, np.array([[1, 1]]), {"Student": student, "T": teacher}, {}, None)
    result = fidelity(table, "T")
    assert result.agreement == 0.5
    bernoulli = [p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in ((0.9, 0.6), (0.8, 0.4))]
    assert result.kl == pytest.approx(np.mean(bernoulli), abs=1e-5)
