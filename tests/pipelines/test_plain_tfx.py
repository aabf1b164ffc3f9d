"""Our components in a TFX pipeline of one's own: pipelines/examples/plain_tfx.py."""

import subprocess
import sys

import pytest

from stillhouse.modules.models.serving import served_metrics


@pytest.mark.soak
def test_our_components_work_in_a_plain_tfx_pipeline(project):
    arguments = {"data": "data", "task": "blobs_task", "label": "tree", "root": "runs/plain", "push": "serving"}
    options = [text for name, value in arguments.items() for text in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "stillhouse.pipelines.examples.plain_tfx", *options],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (soft_targets,) = (project.folder / "runs/plain/SoftTargets/soft_targets").iterdir()
    assert list(soft_targets.rglob("*.gz"))
    (version,) = (project.folder / "serving").iterdir()
    (examples,) = (project.folder / "runs/plain/CsvExampleGen/examples").iterdir()
    served = served_metrics(str(version), str(examples / "Split-eval" / "*"), "tree")
    assert served["example_count"] > 100
    assert served["accuracy"] > 0.8
