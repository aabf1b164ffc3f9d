"""Plays Kubeflow's driver and launcher on this machine: runs a compiled pipeline, task by task, as they would.

Artifacts live in an object store, which is a folder here. Before a task the launcher downloads its inputs to
/minio/... (below the task's own root), gives the ExecutorInput to its command line, and after it uploads its outputs
and takes over what the ExecutorOutput says of them. As from an object store, empty folders do not arrive.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

SCHEME, FOLDER = "minio://", "minio"


class TaskError(Exception):
    """A task failed; has its name and the end of its output."""

    def __init__(self, task: str, output: str):
        super().__init__(f"{task}: {output}")
        self.task, self.output = task, output


@dataclass
class Launcher:
    """One run of a pipeline."""

    documents: list[dict[str, Any]]
    folder: Path
    run_id: str = "run-1"
    parameters: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    artifacts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        return self.documents[0]

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def run(self) -> None:
        """Runs all tasks, two at a time; raises TaskError for the first that fails."""
        tasks = self.spec["root"]["dag"]["tasks"]
        order = TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()})
        order.prepare()
        running = {}
        with ThreadPoolExecutor(2) as cluster:
            while order.is_active():
                running |= {cluster.submit(self.run_task, name): name for name in order.get_ready()}
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()
                    order.done(running.pop(one))

    def uri(self, task: str, key: str) -> str:
        return f"{SCHEME}mlpipeline/v2/artifacts/{self.spec['pipelineInfo']['name']}/{self.run_id}/{task}/{key}"

    def executor_input(self, name: str, work: Path) -> dict[str, Any]:
        """Returns the ExecutorInput of a task, inputs without their types, as the driver makes it."""
        task = self.spec["root"]["dag"]["tasks"][name]
        component = self.spec["components"][task["componentRef"]["name"]]
        defaults = self.spec["root"]["inputDefinitions"]["parameters"]
        values = {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in source:
                wanted = source["componentInputParameter"]
                values[key] = self.parameters.get(wanted, defaults[wanted]["defaultValue"])
            else:
                values[key] = source["runtimeValue"]["constant"]
        inputs = {
            key: {"artifacts": [self.artifacts[_source(of)]]}
            for key, of in task.get("inputs", {}).get("artifacts", {}).items()
        }
        outputs = {
            key: {"artifacts": [{"name": key, "uri": self.uri(name, key), "type": of["artifactType"]}]}
            for key, of in component.get("outputDefinitions", {}).get("artifacts", {}).items()
        }
        return {
            "inputs": {"parameterValues": values, "artifacts": inputs},
            "outputs": {"artifacts": outputs, "outputFile": str(work / "kfp" / "outputs" / "output_metadata.json")},
        }

    def run_task(self, name: str) -> None:
        """Runs one task in a process of its own, in an empty folder."""
        task = self.spec["root"]["dag"]["tasks"][name]
        label = self.spec["components"][task["componentRef"]["name"]]["executorLabel"]
        container = self.spec["deploymentSpec"]["executors"][label]["container"]
        work = self.folder / "tasks" / f"{self.run_id}-{name}"
        (work / "cwd").mkdir(parents=True)
        given = self.executor_input(name, work)
        for found in given["inputs"]["artifacts"].values():
            for artifact in found["artifacts"]:
                self._download(artifact["uri"], work)
        for found in given["outputs"]["artifacts"].values():
            for artifact in found["artifacts"]:
                _place(artifact["uri"], work).parent.mkdir(parents=True, exist_ok=True)
        Path(given["outputs"]["outputFile"]).parent.mkdir(parents=True)
        command = [part.replace("{{$}}", json.dumps(given)) for part in [*container["command"], *container["args"]]]
        done = subprocess.run(
            [sys.executable if command[0] == "python" else command[0], *command[1:]],
            cwd=work / "cwd",
            env=self.environment
            | {"HOME": str(work), "PATH": os.defpath, "STILLHOUSE_LAUNCHER_ROOT": str(work), "TMPDIR": str(work)},
            capture_output=True,
            text=True,
        )
        (work / "output").write_text(done.stdout + done.stderr)
        if done.returncode:
            assert not Path(given["outputs"]["outputFile"]).exists(), "a task that failed has reported something"
            raise TaskError(name, done.stderr[-3000:])
        told = json.loads(Path(given["outputs"]["outputFile"]).read_text())
        for key, found in given["outputs"]["artifacts"].items():
            (artifact,) = found["artifacts"]
            (reported,) = told.get("artifacts", {}).get(key, {"artifacts": [{}]})["artifacts"]
            uri = reported.get("uri", artifact["uri"])
            self._upload(uri, work)
            # The driver of the next task leaves the schema out.
            self.artifacts[name, key] = {
                "name": f"{self.run_id}/{name}/{key}",
                "uri": uri,
                "metadata": reported.get("metadata", {}),
            }
        shutil.rmtree(work / FOLDER, ignore_errors=True)

    def _download(self, uri: str, work: Path) -> None:
        source, target = self.store / uri.removeprefix(SCHEME), _place(uri, work)
        for path in source.rglob("*"):
            if path.is_file():
                to = target / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)

    def _upload(self, uri: str, work: Path) -> None:
        source, target = _place(uri, work), self.store / uri.removeprefix(SCHEME)
        for path in source.rglob("*"):
            if path.is_file():
                to = target / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)


def _place(uri: str, work: Path) -> Path:
    assert uri.startswith(SCHEME), uri
    return work / FOLDER / uri.removeprefix(SCHEME)


def _source(of: dict[str, Any]) -> tuple[str, str]:
    return of["taskOutputArtifact"]["producerTask"], of["taskOutputArtifact"]["outputArtifactKey"]
