"""The fresh process of the serving check: what is the model's fault is a verdict, all else is none."""

import shutil

import pytest
from artifacts import Artifacts

from stillhouse.components.serving_check import executor
from stillhouse.components.serving_check.executor import serve_in_fresh_process
from stillhouse.modules.errors import MachineError


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the student's SavedModel, and the raw examples."""
    run = Artifacts(trained.folder / "runs" / "blobs")
    saved_model = tmp_path / "model"
    shutil.copytree(run.uri("Student", "model") / "Format-Serving", saved_model)
    return saved_model, str(run.uri("ExampleGen", "examples") / "Split-eval" / "*")


def test_a_model_that_does_not_load_is_refused(model):
    saved_model, examples = model
    (saved_model / "saved_model.pb").write_bytes(b"not a model")
    served = serve_in_fresh_process(str(saved_model), examples, "tree")
    assert served.metrics is None
    assert served.refused


def test_a_process_that_could_not_measure_is_no_verdict(model, monkeypatch, tmp_path):
    saved_model, examples = model
    monkeypatch.setattr(executor.sys, "executable", shutil.which("false"))
    with pytest.raises(MachineError, match="ended with exit code 1 and measured nothing"):
        serve_in_fresh_process(str(saved_model), examples, "tree")
    monkeypatch.undo()
    with pytest.raises(MachineError, match="measured nothing: .*no examples in"):
        serve_in_fresh_process(str(saved_model), str(tmp_path / "nothing-here" / "*"), "tree")
