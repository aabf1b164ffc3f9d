"""A finished run as data frames."""

import json
import shutil

import pytest

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.local.finished_run import read_run


@pytest.fixture(scope="module")
def run(finished):
    return read_run(finished.folder / "runs" / "blobs")


def test_models_metrics_slices_and_gates_are_those_of_the_comparison(run):
    names = ["Teacher-1", "Teacher-2", "Ensemble", "Baseline", "Student"]
    assert list(run.models.index) == list(run.metrics.index) == names
    assert run.models.loc["Student", "role"] == "student"
    assert run.models.loc["Student", "parameters"] == 4 * 3 + 3 + 3 * 3 + 3
    assert run.metrics.loc["Student", "accuracy"] == run.comparison["models"][-1]["metrics"]["accuracy"]
    of_student = run.slices.loc["Student"]
    assert list(of_student.index) == ["tree=ash", "tree=birch", "tree=cedar"]
    assert of_student["example_count"].sum() == run.comparison["eval_examples"]
    assert run.pairs.loc[("Student", "Ensemble"), "verdict"] in ("better", "worse", "undecided")
    assert run.gates.loc[["teacher", "baseline", "serving"], "passed"].all()


def test_predictions_give_the_accuracies_of_the_evaluation(run):
    predictions = run.predictions
    assert len(predictions) == run.comparison["eval_examples"]
    assert set(predictions["label"]) == {"ash", "birch", "cedar"}
    for name in run.models.index:
        right = predictions[f"{name}.class"] == predictions["label"]
        assert right.mean() == pytest.approx(run.metrics.loc[name, "accuracy"], abs=1e-6)
        assert predictions[f"{name}.probability"].between(1 / 3, 1.0).all()
    right = predictions.query("`Student.class` == label")  # as docs/api.md has it
    assert len(right) / len(predictions) == pytest.approx(run.metrics.loc["Student", "accuracy"], abs=1e-6)
    assert run.predictions is predictions  # computed once


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"found no comparison.json; expected the root of a finished run"):
        read_run(tmp_path)
    with pytest.raises(UserError, match=r"found no comparison.json"):
        read_run(tmp_path / "missing")
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(UserError, match=r"not valid JSON"):
        read_run(tmp_path)


def test_predictions_need_the_artifacts(run, tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(run.comparison))
    with pytest.raises(UserError, match=r"the artifacts of run .* are gone"):
        _ = read_run(tmp_path).predictions
    shutil.copy(run.root / "metadata.sqlite", tmp_path)
    (tmp_path / "comparison.json").write_text(json.dumps(run.comparison | {"run_id": "another"}))
    with pytest.raises(UserError, match=r"the artifacts of run another are gone"):
        _ = read_run(tmp_path).predictions
