"""The examples as Kubeflow would run them, from ExampleGen to Pusher, and then again, with nothing changed."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import object_store
import pytest
import tensorflow as tf
from artifacts import Artifacts
from launcher import Launcher

from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.kubeflow.compile import compile_pipeline
from stillhouse.pipelines.kubeflow.submit import task_names

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = REPOSITORY / "pipelines" / "examples"
SECRETS = {"minio": {"accesskey": "key", "secretkey": "secret"}}
NEVER_TAKEN = {"comparedata", "retrain", "lastpushed", "pusher", "report", "rememberdata"}


@pytest.mark.parametrize("name", ["digits", "taxi"])
@pytest.mark.soak
def test_the_student_that_is_pushed_is_that_of_the_local_run_and_made_once(tmp_path, name):
    push, data = tmp_path / "serving", REPOSITORY / "data" / name
    volumes = f"[{{claim: data, mount: {data}}}, {{claim: push, mount: {push}}}]"
    overrides = [f"data.path={data}", f"push.path={push}", f"kubeflow.volumes={volumes}"]
    environment = {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with object_store.serving() as store:
        storage = f"kubeflow.storage={{endpoint: '{store.endpoint}', secret: minio}}"
        settings = load_settings(EXAMPLES / f"{name}.yaml", [*overrides, storage])
        documents = compile_pipeline(settings, "registry.example/stillhouse:1.0")
        began, launchers = [time.monotonic()], []
        for mlmd in (True, False):
            launchers.append(
                Launcher(documents, store, tmp_path / "pods", environment=environment, secrets=SECRETS, mlmd=mlmd)
            )
            launchers[-1].run()
            began.append(time.monotonic())
        taken = launchers[1].taken()
    seconds = [later - earlier for earlier, later in itertools.pairwise(began)]
    print(f"{name}: {len(taken)} of {len(launchers[1].logs)} tasks taken; {seconds[0]:.0f} s, then {seconds[1]:.0f} s")
    assert set(task_names(documents[0])) - taken == NEVER_TAKEN
    (pushed,) = (path for path in push.iterdir() if path.name.isdigit())

    command = [sys.executable, "-m", "stillhouse", "run", str(EXAMPLES / f"{name}.yaml"), "--root", "runs/local"]
    subprocess.run(
        [*command, f"--set=data.path={data}", "--set=push.path=local"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
    )
    local = Artifacts(tmp_path / "runs" / "local").uri("Student", "model") / "Format-Serving"
    weights = [
        [variable.numpy() for variable in tf.saved_model.load(str(folder)).network.trainable_variables]
        for folder in (pushed, local)
    ]
    for ours, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
