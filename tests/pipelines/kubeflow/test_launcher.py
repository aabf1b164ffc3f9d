"""The stand-in for the backend against the records of the real one: the inputs that it makes, task by task.

The records are of the pipeline of blobs at 03eaa20, which is beside them as it was compiled then.
"""

import json
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from launcher import LOGS, Artifact, Launcher, Made, Scope, TaskError

RECORDED = Path(__file__).parent / "recorded"
TASKS = RECORDED / "tasks"
UNIQUE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ALL = sorted(path.stem for path in TASKS.glob("*.json") if not path.stem.startswith(("first-run-", "newest-")))
WITHOUT_MLMD = ("comparedata", "statisticsgen", "lastpushed")


def record(name: str) -> dict[str, Any]:
    return json.loads((TASKS / f"{name}.json").read_text())


@dataclass
class Replay(Launcher):
    """Runs no command: a task makes what the real one has made."""

    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def _run_task(self, name, task, inputs):
        component, of = self._component(task), record(name)
        self.inputs[name] = self.executor_input(name, component, inputs)
        made = Made()
        if name == "comparedata":
            remembered = record("rememberdata")["executor_input"]["inputs"]["parameterValues"]
            made.parameters = {"changed": "true", "fingerprint": remembered["fingerprint"]}
        for key, several in (of["executor_output"] or {}).get("artifacts", {}).items():
            (reported,) = several["artifacts"]
            schema = component["outputDefinitions"]["artifacts"][key]["artifactType"]
            id_ = of["ids"][key] if self.mlmd else str(uuid.uuid4())
            made.artifacts[key] = Artifact(id_, key, reported["uri"], schema, reported["metadata"])
        return made


@pytest.fixture(scope="module")
def documents():
    return list(yaml.safe_load_all((RECORDED / "blobs-03eaa20.yaml").read_text()))


def replayed(documents, **options):
    replay = Replay(documents, store=None, folder=Path(), **options)
    replay.run()
    assert sorted(replay.inputs) == ALL
    return replay.inputs


def comparable(content: Any) -> Any:
    """Returns JSON without what is unique to a run or a task."""
    return json.loads(UNIQUE.sub("UNIQUE", json.dumps(content)))


@pytest.fixture(scope="module")
def of_mlmd(documents):
    return replayed(documents)


@pytest.fixture(scope="module")
def of_newest(documents):
    changed = {"push_path": "/data/serving-new", "student_epochs": 1, "teacher_1_epochs": 1}
    return replayed(documents, mlmd=False, parameters=changed)


@pytest.mark.parametrize("task", ALL)
def test_a_task_gets_what_the_backend_gives_it(of_mlmd, task):
    assert comparable(of_mlmd[task]) == comparable(record(task)["executor_input"])


@pytest.mark.parametrize("task", WITHOUT_MLMD)
def test_a_task_gets_what_the_backend_without_mlmd_gives_it(of_newest, task):
    assert comparable(of_newest[task]) == comparable(record(f"newest-{task}")["executor_input"])


def test_an_artifact_that_a_task_gets_twice_fails_its_driver_where_there_is_mlmd(documents, tmp_path):
    name, component = "report", documents[0]["components"]["comp-report"]
    artifact = Artifact("7", "evaluation", "minio://mlpipeline/x", {"schemaTitle": "tfx.ModelEvaluation"}, {})
    task = documents[0]["components"]["comp-retrain"]["dag"]["tasks"][name]
    told = []
    launcher = Launcher(documents, store=None, folder=tmp_path, told=lambda *node: told.append(node))
    with pytest.raises(TaskError, match="failed to lookup existing execution"):
        launcher._run_task(name, task, Scope(artifacts={"evaluation_1": artifact, "evaluation_2": artifact}))
    assert told == [("report-driver", "FAILED", "")]
    assert LOGS not in component["outputDefinitions"]["artifacts"]  # the backend adds it
