"""Fixtures shared by all tests."""

import functools
import json
import os
import re
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import filelock
import pytest
from xdist.scheduler import LoadScopeScheduling

import stillhouse  # noqa: F401  (selects tf_keras before a test imports TensorFlow)

sys.path.insert(0, str(Path(__file__).parent))
import forking
from user_project import Project

REPOSITORY = Path(__file__).parent.parent
RELIABILITY = REPOSITORY / "build" / "reliability.jsonl"  # how the cases of the campaign have ended
RUNS = {"finished": 0, "trained": 2}  # fixtures, and where their tests stand among the others
COPY = "finished_copy"  # of the project of `finished`, for the other workers
TWO_TEACHERS = [{"copies": 2, "epochs": 10, "optimizer": {"learning_rate": 0.01}}]


def pytest_configure(config):
    """Starts the process that forks while pytest-xdist's workers start; they share it."""
    if getattr(config.option, "numprocesses", None):
        forking.start_shared_server()


def pytest_unconfigure():
    forking.RESOURCES.close()


def pytest_xdist_make_scheduler(config, log):
    """Lets the files whose tests need the same run of a pipeline share a worker, and so one run."""

    class ByRun(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return run_of(config.rootpath / nodeid.partition("::")[0])

    return ByRun(config, log)


def pytest_collection_modifyitems(items):
    """Lets the one worker begin with the finished run, which the other needs only after a while: for `trained`."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return

    def position(item) -> int:
        run = run_of(item.path)
        if run in RUNS:
            return RUNS[run]
        return 3 if "modules" in item.path.parts else 1

    items.sort(key=position)


def pytest_runtest_logreport(report):
    """Notes the cases of a test that records the property `fault`, for docs/reliability.py."""
    properties = dict(report.user_properties)
    if report.when != "call" or "fault" not in properties or "PYTEST_XDIST_WORKER" in os.environ:
        return
    tried = properties.get("tried", 1)
    case = {
        "test": report.nodeid,
        "fault": properties["fault"],
        "tried": tried,
        "ok": tried if report.passed else 0,
        "known": getattr(report, "wasxfail", ""),
    }
    RELIABILITY.parent.mkdir(exist_ok=True)
    with RELIABILITY.open("a", encoding="utf-8") as file:
        file.write(json.dumps(case) + "\n")


@functools.cache
def run_of(file: Path) -> str:
    """Returns the fixture `finished` or `trained` if a function in the file has such an argument, else the file."""
    arguments = re.findall(r"^def \w+\(([^)]*)\)", file.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name for text in arguments for name in re.findall(r"\w+", text)}
    return next((run for run in RUNS if run in names), str(file))


@pytest.fixture(scope="session", autouse=True)
def two_cpu_devices():
    """TensorFlow fixes its devices at its first operation; the tests of replicas want two."""
    from stillhouse.modules.cluster.strategies import prepare_devices

    prepare_devices(4)


@pytest.fixture(scope="session", autouse=True)
def no_arguments():
    """TFX's executors look for flags in sys.argv, and take pytest's -v for one of absl's, which wants a number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv[:1])
        yield


@pytest.fixture
def project(tmp_path):
    """A fresh project of the blobs task."""
    import blobs

    blobs.write_project(tmp_path)
    return Project(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A project whose pipeline has run at least as far as the student; tests must leave it as it is.

    It is a copy of that of `finished` if a worker has made it; else it is run without the evaluations, most of a run.
    """
    import blobs
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.orchestration.pipeline import RunOptions

    from stillhouse.modules.settings import load_settings
    from stillhouse.pipelines.dag.create import create_pipeline
    from stillhouse.pipelines.local.paths import local_paths

    copy = shared_folder(tmp_path_factory) / COPY
    with filelock.FileLock(f"{copy}.lock"):  # that may be going on
        if copy.exists():
            return Project(copy)
    project = Project(tmp_path_factory.mktemp("trained"))
    settings = load_settings(blobs.write_project(project.folder, teachers=TWO_TEACHERS))
    (project.folder / "runs" / "blobs").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        patch.syspath_prepend(project.folder)
        pipeline = create_pipeline(settings, local_paths(settings, project.folder / "runs" / "blobs"))
        LocalDagRunner().run(pipeline, RunOptions(to_nodes=["Student"]))
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project whose pipeline has run once, to a pushed student; tests must leave it as it is."""
    import blobs

    project = Project(tmp_path_factory.mktemp("finished"))
    blobs.write_project(project.folder, teachers=TWO_TEACHERS)
    copy = shared_folder(tmp_path_factory) / COPY
    with filelock.FileLock(f"{copy}.lock"):
        project.first_run = project.stillhouse("run", "blobs.yaml")
        assert project.first_run.returncode == 0, project.first_run.stderr
        shutil.copytree(project.folder, copy)
    return project


def shared_folder(tmp_path_factory) -> Path:
    """Returns the folder of the session that pytest-xdist's workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
