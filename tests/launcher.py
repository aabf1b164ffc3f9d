"""Plays Kubeflow's driver and launcher on this machine: runs a compiled pipeline, task by task, as they would.

Artifacts live in an object store, which is a folder here. Before a task the launcher downloads its inputs to
/minio/... (below the task's own root), gives the ExecutorInput to its command line, and after it uploads its outputs
and takes over what the ExecutorOutput says of them. As from an object store, empty folders do not arrive.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import forking

SCHEME, FOLDER = "minio://", "minio"


class TaskError(Exception):
    """A task failed; has its name and the end of its output."""

    def __init__(self, task: str, output: str):
        super().__init__(f"{task}: {output}")
        self.task, self.output = task, output


@dataclass
class Made:
    """What a task has made."""

    parameters: dict[str, Any]
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Scope:
    """What the tasks of a DAG can have: its own inputs, and what they make."""

    parameters: dict[str, Any]
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)

    def inputs_of(self, task: dict[str, Any]) -> "Scope":
        """Returns the inputs of a task, by the names that its component knows them by."""
        found = Scope({})
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in source:
                found.parameters[key] = self.parameters[source["componentInputParameter"]]
            elif "taskOutputParameter" in source:
                of = source["taskOutputParameter"]
                found.parameters[key] = self.made[of["producerTask"]].parameters[of["outputParameterKey"]]
            else:
                found.parameters[key] = source["runtimeValue"]["constant"]
        for key, source in task.get("inputs", {}).get("artifacts", {}).items():
            if "componentInputArtifact" in source:
                found.artifacts[key] = self.artifacts[source["componentInputArtifact"]]
            else:
                of = source["taskOutputArtifact"]
                found.artifacts[key] = self.made[of["producerTask"]].artifacts[of["outputArtifactKey"]]
        return found


@dataclass
class Launcher:
    """One run of a pipeline."""

    documents: list[dict[str, Any]]
    folder: Path
    run_id: str = "run-1"
    parameters: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    told: Callable[[str, str], None] = lambda task, state: None
    processes: tuple[str, ...] = ("examplegen", "comparedata")  # tasks with a Python of their own; others are forks

    @property
    def spec(self) -> dict[str, Any]:
        return self.documents[0]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def run(self) -> None:
        """Runs all tasks, two at a time; raises TaskError for the first that fails."""
        defaults = self.spec["root"]["inputDefinitions"]["parameters"]
        parameters = {name: of["defaultValue"] for name, of in defaults.items()} | self.parameters
        forking.server()  # once, before there are threads
        with ThreadPoolExecutor(2) as cluster:
            self._run_dag(self.spec["root"], Scope(parameters), cluster)

    def run_one(self, name: str) -> None:
        """Runs one task of the outermost DAG, which needs no other."""
        task, defaults = self.spec["root"]["dag"]["tasks"][name], self.spec["root"]["inputDefinitions"]["parameters"]
        parameters = {name: of["defaultValue"] for name, of in defaults.items()} | self.parameters
        self._run_task(name, self.spec["components"][task["componentRef"]["name"]], Scope(parameters).inputs_of(task))

    def _run_dag(self, dag: dict[str, Any], scope: "Scope", cluster: ThreadPoolExecutor) -> None:
        tasks = dag["dag"]["tasks"]
        order = TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()})
        order.prepare()
        running = {}
        while order.is_active():
            for name in order.get_ready():
                component = self.spec["components"][tasks[name]["componentRef"]["name"]]
                inputs = scope.inputs_of(tasks[name])
                if not _holds(tasks[name], inputs):
                    self.told(name, "SKIPPED")
                    order.done(name)
                elif "dag" in component:
                    self.told(name, "RUNNING")
                    self._run_dag(component, inputs, cluster)
                    self.told(name, "SUCCEEDED")
                    order.done(name)
                else:
                    running[cluster.submit(self._run_task, name, component, inputs)] = name
            if not running:
                continue
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                name = running.pop(one)
                scope.made[name] = one.result()
                order.done(name)

    def uri(self, task: str, key: str) -> str:
        return f"{SCHEME}mlpipeline/v2/artifacts/{self.spec['pipelineInfo']['name']}/{self.run_id}/{task}/{key}"

    def executor_input(self, name: str, component: dict[str, Any], inputs: "Scope", work: Path) -> dict[str, Any]:
        """Returns the ExecutorInput of a task, inputs without their types, as the driver makes it."""
        made, told = component.get("outputDefinitions", {}), work / "kfp" / "outputs"
        outputs = {
            key: {"artifacts": [{"name": key, "uri": self.uri(name, key), "type": of["artifactType"]}]}
            for key, of in made.get("artifacts", {}).items()
        }
        return {
            "inputs": {
                "parameterValues": inputs.parameters,
                "artifacts": {key: {"artifacts": [of]} for key, of in inputs.artifacts.items()},
            },
            "outputs": {
                "artifacts": outputs,
                "parameters": {key: {"outputFile": str(told / key)} for key in made.get("parameters", {})},
                "outputFile": str(told / "output_metadata.json"),
            },
        }

    def _run_task(self, name: str, component: dict[str, Any], inputs: "Scope") -> "Made":
        """Runs one task in a process of its own, in an empty folder."""
        self.told(name, "RUNNING")
        try:
            made = self._launch(name, component, inputs)
        except BaseException:
            self.told(name, "FAILED")
            raise
        self.told(name, "SUCCEEDED")
        return made

    def _launch(self, name: str, component: dict[str, Any], inputs: "Scope") -> "Made":
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        work = self.folder / "tasks" / f"{self.run_id}-{name}"
        (work / "cwd").mkdir(parents=True)
        given = self.executor_input(name, component, inputs, work)
        for artifact in inputs.artifacts.values():
            self._download(artifact["uri"], work)
        for found in given["outputs"]["artifacts"].values():
            for artifact in found["artifacts"]:
                _place(artifact["uri"], work).parent.mkdir(parents=True, exist_ok=True)
        output_file = Path(given["outputs"]["outputFile"])
        output_file.parent.mkdir(parents=True)
        command = [part.replace("{{$}}", json.dumps(given)) for part in [*container["command"], *container["args"]]]
        assert command[:2] == ["python", "-m"], command
        own = name in self.processes
        command = [sys.executable, *command[1:]] if own else forking.command(*command[2:])
        done = subprocess.run(
            command,
            cwd=work / "cwd",
            env=self.environment
            | {"HOME": str(work), "PATH": os.defpath, "STILLHOUSE_LAUNCHER_ROOT": str(work), "TMPDIR": str(work)},
            capture_output=True,
            text=True,
        )
        (work / "output").write_text(done.stdout + done.stderr)
        if done.returncode:
            assert not output_file.exists(), "a task that failed has reported something"
            raise TaskError(name, done.stderr[-3000:])
        told = json.loads(output_file.read_text()) if output_file.exists() else {}
        made = Made({key: Path(of["outputFile"]).read_text() for key, of in given["outputs"]["parameters"].items()})
        for key, found in given["outputs"]["artifacts"].items():
            (artifact,) = found["artifacts"]
            (reported,) = told.get("artifacts", {}).get(key, {"artifacts": [{}]})["artifacts"]
            uri = reported.get("uri", artifact["uri"])
            self._upload(uri, work)
            # The driver of the next task leaves the schema out.
            made.artifacts[key] = {
                "name": f"{self.run_id}/{name}/{key}",
                "uri": uri,
                "metadata": reported.get("metadata", {}),
            }
            self.artifacts[name, key] = made.artifacts[key]
        shutil.rmtree(work / FOLDER, ignore_errors=True)
        return made

    def _download(self, uri: str, work: Path) -> None:
        source, target = self.store / uri.removeprefix(SCHEME), _place(uri, work)
        for path in source.rglob("*"):
            if path.is_file():
                to = target / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)

    def _upload(self, uri: str, work: Path) -> None:
        source, target = _place(uri, work), self.store / uri.removeprefix(SCHEME)
        for path in [source, *source.rglob("*")]:  # a file, or a folder of files
            if path.is_file():
                to = target / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)


def _place(uri: str, work: Path) -> Path:
    assert uri.startswith(SCHEME), uri
    return work / FOLDER / uri.removeprefix(SCHEME)


def _holds(task: dict[str, Any], inputs: "Scope") -> bool:
    """Tells whether the trigger policy of a task lets it run; of the conditions, those that say `is equal`."""
    condition = task.get("triggerPolicy", {}).get("condition")
    if condition is None:
        return True
    name, value = re.fullmatch(r"inputs\.parameter_values\['(.+)'\] == '(.*)'", condition).groups()
    return inputs.parameters[name] == value
