"""A user's folder has packages of its own with the names of our rooms; ours are installed beside them."""

import json
import os
import shutil
import subprocess
import sys

import blobs
import pytest
import yaml
from conftest import REPOSITORY, Project

OWN_PACKAGES = ("modules", "components", "pipelines", "utils")


@pytest.fixture(scope="module")
def regular(tmp_path_factory):
    """Installs the repository as pip does without --editable; returns the folder of the packages."""
    build, site = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("site")
    for name in ("stillhouse", "pipelines", "components", "modules"):
        shutil.copytree(REPOSITORY / name, build / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, build)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", site, build], check=True)
    return site


@pytest.fixture
def own_packages(tmp_path):
    """A project whose task is modules.my_task, which imports another package of the user's."""
    blobs.write_csv(tmp_path / "data" / "blobs.csv", blobs.rows())
    for name in OWN_PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "utils" / "columns.py").write_text('COLUMNS = ("a", "b", "c", "d")\n')
    task = blobs.TASK.replace(
        "import tf_keras as keras\n", "import tf_keras as keras\n\nfrom utils.columns import COLUMNS\n"
    )
    (tmp_path / "modules" / "my_task.py").write_text(task.replace('("a", "b", "c", "d")', "COLUMNS"))
    raw = blobs.settings(task="modules.my_task")
    raw["teachers"] = [{"epochs": 2, "strategy": {"name": "multi_worker_mirrored", "workers": 2}}]
    raw["student"] = {"epochs": 2, "distillation": {"dark_knowledge": []}}
    raw["evaluation"] = {"gates": {"teacher": {"max_drop": 0.9}, "baseline": None, "pushed": None}}
    (tmp_path / "blobs.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def scheduled_run(project):
    """Runs the pipeline by a schedule, with a training of two processes and the process of the serving check."""
    made = project.stillhouse("schedule", "create", "blobs.yaml", "--on", "local", "--every", "1h")
    assert made.returncode == 0, made.stderr
    done = project.stillhouse("schedule", "run-now", "blobs", "--on", "local")
    assert done.returncode == 0, done.stderr
    comparison = json.loads((project.folder / "runs" / "blobs" / "comparison.json").read_text())
    assert os.path.isdir(comparison["pushed"])
    assert next(model for model in comparison["models"] if model["role"] == "teacher")["replicas"] == 2
    assert next(gate for gate in comparison["gates"] if gate["name"] == "serving")["passed"]
    return comparison


@pytest.fixture
def installed(own_packages, regular):
    return Project(own_packages, environment=dict(os.environ) | {"PYTHONPATH": str(regular)}, fresh=True)


def test_a_regular_installation_is_imported_beside_packages_of_the_same_names(installed, regular):
    where = "import stillhouse.modules.training, modules; print(stillhouse.modules.training.__file__, modules.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=installed.folder, env=installed.environment, capture_output=True, text=True
    )
    ours, theirs = found.stdout.split()
    assert ours.startswith(str(regular))
    assert theirs.startswith(str(installed.folder))
    checked = installed.stillhouse("run", "blobs.yaml", "--dry-run")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.soak
def test_a_regular_installation_runs_beside_packages_of_the_same_names(installed):
    scheduled_run(installed)


@pytest.mark.soak
def test_an_editable_installation_runs_beside_packages_of_the_same_names(own_packages):
    project = Project(own_packages)
    scheduled_run(project)
    # A change in another of the user's packages is seen.
    columns = own_packages / "utils" / "columns.py"
    columns.write_text(columns.read_text().replace('"a", "b", "c", "d"', '"b", "a", "c", "d"'))
    changed = project.stillhouse("schedule", "run-now", "blobs", "--on", "local")
    assert changed.returncode == 0, changed.stderr
    assert "unchanged since the run" not in changed.stderr
    assert "Transform                 from cache" not in changed.stderr
