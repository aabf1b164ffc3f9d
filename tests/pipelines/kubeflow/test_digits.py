"""The digits example as Kubeflow would run it, from ExampleGen to Pusher."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from artifacts import Artifacts
from launcher import Launcher

from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.kubeflow.compile import compile_pipeline

REPOSITORY = Path(__file__).parents[3]
SETTINGS = REPOSITORY / "pipelines" / "examples" / "digits.yaml"


@pytest.mark.soak
def test_the_student_that_is_pushed_is_that_of_the_local_run(tmp_path):
    push, data = tmp_path / "serving", REPOSITORY / "data" / "digits"
    volumes = f"[{{claim: data, mount: {data}}}, {{claim: push, mount: {push}}}]"
    overrides = [f"data.path={data}", f"push.path={push}", f"kubeflow.volumes={volumes}"]
    documents = compile_pipeline(load_settings(SETTINGS, overrides), "registry.example/stillhouse:1.0")
    environment = {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    Launcher(documents, tmp_path / "cluster", environment=environment).run()
    (pushed,) = (path for path in push.iterdir() if path.name.isdigit())

    command = [sys.executable, "-m", "stillhouse", "run", str(SETTINGS), "--root", "runs/digits"]
    subprocess.run(
        [*command, f"--set=data.path={data}", "--set=push.path=local"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
    )
    local = Artifacts(tmp_path / "runs" / "digits").uri("Student", "model") / "Format-Serving"
    weights = [
        [variable.numpy() for variable in tf.saved_model.load(str(folder)).network.trainable_variables]
        for folder in (pushed, local)
    ]
    for ours, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
