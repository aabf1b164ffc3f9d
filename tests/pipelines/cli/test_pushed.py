"""The commands that list pushed versions and go back to one."""

import io
import json

import blobs
import pytest
from rich.console import Console
from typer.testing import CliRunner

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes.versions import model_fingerprint, newest_version
from stillhouse.pipelines.cli.app import app
from stillhouse.pipelines.cli.comparison_table import print_comparison


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Calls a command in a project's folder."""
    blobs.write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def version(folder, content, **record):
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "assets.extra" / "stillhouse.json").write_text("{}")
    record = {"fingerprint": model_fingerprint(str(folder))} | record
    (folder / "assets.extra" / "push.json").write_text(json.dumps(record))


def test_versions_are_listed_and_an_older_one_is_made_the_newest(command, tmp_path):
    serving = tmp_path / "serving"
    gates = [{"name": "teacher", "passed": True}]
    version(serving / "1", "one", time="2026-01-02T03:04:05+00:00", run_id="r1", metrics={"auc": 0.5}, gates=gates)
    version(serving / "2", "two")
    (serving / "3").mkdir()
    run = tmp_path / "runs" / "blobs"
    run.mkdir(parents=True)
    comparison = {"pushed": str(serving / "2"), "run_id": "r2", "models": [], "gates": []}
    (run / "comparison.json").write_text(json.dumps(comparison))
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "comparison.json").write_text("{")

    listed = command("pushed", "blobs.yaml")
    assert listed.exit_code == 0, listed.output
    lines = {line.split()[1]: line for line in listed.stdout.splitlines() if line.startswith("│")}
    assert all(text in lines["1"] for text in ("2026-01-02 03:04:05", "r1", "auc 0.5000", "teacher passed"))
    assert "r2" in lines["2"]
    assert "served" in lines["2"]
    assert "not a SavedModel" in lines["3"]

    done = command("rollback", "blobs.yaml", "--json")
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer == {"pushed": str(serving / newest_version(str(serving))), "copy_of": "1"}
    newest, *_, oldest = json.loads(command("pushed", "blobs.yaml", "--json").stdout)["versions"]
    assert (newest["path"], newest["served"], newest["copy_of"], newest["run_id"]) == (
        answer["pushed"],
        True,
        "1",
        "r1",
    )
    assert (oldest["version"], oldest["served"], oldest["fault"]) == ("1", False, None)

    again = command("rollback", "blobs.yaml", "--to", "1")
    assert "is the newest version already; nothing to do" in again.stdout
    forward = command("rollback", "blobs.yaml", "--to", "2")
    assert "a copy of version 2" in forward.stdout
    assert (serving / newest_version(str(serving)) / "saved_model.pb").read_text() == "two"


@pytest.mark.parametrize(("served", "is_named"), [("serving/1", False), ("serving/2", True), (None, False)])
def test_a_comparison_says_that_a_newer_version_is_served(served, is_named):
    comparison = {"pipeline": "p", "eval_examples": 1, "models": [], "gates": [], "pushed": "serving/1"}
    console = Console(file=io.StringIO(), width=200)
    print_comparison(comparison | {"served": served}, console)
    text = console.file.getvalue()
    assert "pushed to serving/1" in text
    assert ("not served: serving/2 is a newer version" in text) is is_named


def test_what_cannot_be_done_has_an_exit_code_and_a_sentence(command, tmp_path):
    serving = tmp_path / "serving"
    for name in ("pushed", "rollback"):
        error = command(name, "blobs.yaml").exception
        assert type(error) is UserError
        assert error.exit_code == 2
        assert f"push.path: no versions in {serving}" in str(error)
    assert json.loads(command("pushed", "blobs.yaml", "--json").stdout)["versions"] == []
    version(serving / "1", "one")
    version(serving / "2", "two")
    error = command("rollback", "blobs.yaml", "--to", "5").exception
    assert (type(error), error.exit_code) == (UserError, 2)
    assert f"--to: found 5; expected a version in {serving}: 2, 1" in str(error)
    (serving / "1" / "saved_model.pb").write_text("half")
    error = command("rollback", "blobs.yaml").exception
    assert (type(error), error.exit_code) == (MachineError, 1)
    assert f"{serving}/1: the version is damaged" in str(error)
