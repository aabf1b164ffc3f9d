"""Runs side by side."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.cli.app import app
from stillhouse.pipelines.cli.compare_runs import compare_runs, print_runs


def comparison(accuracy, pushed="serving/1", **settings):
    student = {"name": "Student", "role": "student", "parameters": 10, "bytes": 100, "latency_ms": 0.1}
    models = [
        {"name": "Teacher-1", "role": "teacher", "metrics": {"accuracy": 0.9}},
        student | {"metrics": {"accuracy": accuracy}},
    ]
    return {"models": models, "pushed": pushed, "settings": {"name": "x", "student": settings}}


def test_settings_that_differ_and_all_results_stand_side_by_side():
    one = comparison(0.8, epochs=3, optimizer={"name": "adam"}, hints=[])
    two = comparison(0.85, None, epochs=9, optimizer={"name": "adam"}, hints=[{"weight": 1.0}])
    found = compare_runs(["a", "b"], [one, two])
    assert found["settings"] == {
        "student.epochs": [3, 9],
        "student.hints": [[], None],
        "student.hints.0.weight": [None, 1.0],
    }
    assert found["results"]["Student accuracy"] == [0.8, 0.85]
    assert found["results"]["pushed"] == [True, False]
    text = io.StringIO()
    print_runs(found, Console(file=text, width=200))
    assert "student.epochs" in text.getvalue()


def test_the_command_compares_folders_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, accuracy in (("runs/a", 0.8), ("elsewhere", 0.9)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "comparison.json").write_text(json.dumps(comparison(accuracy)))
    done = CliRunner().invoke(app, ["report", "--compare", "a", "elsewhere", "--json"])
    assert json.loads(done.output)["results"]["Student accuracy"] == [0.8, 0.9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "a"], "--compare: found 1 runs; expected at least 2"),
        (["a", "b"], "found 2 runs; expected one; add --compare to compare them"),
        (["--open", "a"], "runs/a/report.html: no such file; repeat `stillhouse run` to create it"),
        (["broken"], "runs/broken/comparison.json: not valid JSON"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, text in (("a", json.dumps(comparison(0.8))), ("broken", "{")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "comparison.json").write_text(text)
    error = CliRunner().invoke(app, ["report", *arguments]).exception
    assert isinstance(error, UserError)
    assert message in str(error)
