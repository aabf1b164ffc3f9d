"""Plays the backend of Kubeflow Pipelines on this machine: runs a compiled pipeline, task by task.

What it does is what the records of the real driver, launcher and metadata store show (pipelines/kubeflow/recorded,
which test_launcher.py holds it against), of 2.17 and of the backend without MLMD that comes after it:

driver      resolves the inputs of a task and makes its ExecutorInput; refuses one artifact as two inputs.
launcher    downloads the inputs from the object store (S3) to /minio/..., below the task's own root, runs the command,
            reads the ExecutorOutput strictly, and uploads the outputs; of a task that fails only its log.
metadata    hands artifacts on as the real one does: numbers that are whole lose their fraction, structs are wrapped.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import count
from pathlib import Path
from typing import Any

import forking
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from object_store import BUCKET, ObjectStore

ROOT = f"minio://{BUCKET}/v2/artifacts"
LOGS = "executor-logs"
LOG_TYPE = {"schemaTitle": "system.Artifact"}
SCHEME, FOLDER = "minio://", "minio"
# What the launcher's session with the object store is, as artifacts of 2.17 have it.
SESSION = json.dumps(
    {
        "Provider": "minio",
        "Params": {
            "accessKeyKey": "accesskey",
            "disableSSL": "true",
            "endpoint": "minio-service.kubeflow:9000",
            "forcePathStyle": "true",
            "fromEnv": "false",
            "maxRetries": "5",
            "region": "minio",
            "secretKeyKey": "secretkey",
            "secretName": "mlpipeline-minio-artifact",
        },
    },
    separators=(",", ":"),
)


class TaskError(Exception):
    """A task failed; has its name and the end of its output."""

    def __init__(self, task: str, output: str):
        super().__init__(f"{task}: {output}")
        self.task, self.output = task, output


@dataclass
class Artifact:
    """An artifact as the metadata store has it."""

    id: str
    name: str  # of the output that made it
    uri: str
    schema: dict[str, str]  # its type as the spec declares it
    metadata: dict[str, Any]


@dataclass
class Made:
    """What a task has made."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)


@dataclass
class Scope:
    """What the tasks of a DAG can have: its own inputs, and what they make."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    of_dag: set[str] = field(default_factory=set)  # names of the artifacts that came in through the inputs of a DAG

    def inputs_of(self, task: dict[str, Any]) -> "Scope":
        """Returns the inputs of a task, by the names that its component knows them by."""
        found = Scope()
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
                found.of_dag.add(key)
            else:
                of = source["taskOutputArtifact"]
                found.artifacts[key] = self.made[of["producerTask"]].artifacts[of["outputArtifactKey"]]
        return found


@dataclass
class Launcher:
    """One run of a pipeline.

    Attributes:
      documents: the compiled pipeline.
      store: the object store of the cluster.
      folder: where the pods' file systems are, one folder each.
      mlmd: whether the backend has MLMD (2.17), or is the one that comes after it.
      secrets: of the namespace: values by their keys, by name.
      environment: of every container, as the image sets it.
      told: is called with the name of each node of the workflow, its state, and what the pod left as its reason.
      own_processes: tasks with a Python of their own; the others are forks.
    """

    documents: list[dict[str, Any]]
    store: ObjectStore
    folder: Path
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    parameters: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    mlmd: bool = True
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    told: Callable[[str, str, str], None] = lambda node, state, reason: None
    own_processes: tuple[str, ...] = ()
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)  # of each attempt, by task
    warnings: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # of the tasks' outputs
    ids: Any = field(default_factory=lambda: count(1))

    @property
    def spec(self) -> dict[str, Any]:
        return self.documents[0]

    def run(self) -> None:
        """Runs all tasks, two at a time; raises TaskError for the first that fails."""
        forking.server()  # once, before there are threads
        self.told("root-driver", "SUCCEEDED", "")
        self.told("root", "RUNNING", "")
        with ThreadPoolExecutor(2) as cluster:
            self._run_dag(self.spec["root"], Scope(self._root_parameters()), cluster)
        self.told("root", "SUCCEEDED", "")

    def taken(self) -> set[str]:
        """Returns the tasks whose outputs were taken from an earlier run, as their logs tell."""
        return {task for task, logs in self.logs.items() if re.search(r"^\w+: taken from minio://", logs[-1], re.M)}

    def run_one(self, name: str) -> Made:
        """Runs one task of the outermost DAG, which needs no other."""
        task = self.spec["root"]["dag"]["tasks"][name]
        return self._run_task(name, task, Scope(self._root_parameters()).inputs_of(task))

    def _root_parameters(self) -> dict[str, Any]:
        defaults = self.spec["root"]["inputDefinitions"]["parameters"]
        return {name: of["defaultValue"] for name, of in defaults.items()} | self.parameters

    def _run_dag(self, dag: dict[str, Any], scope: Scope, cluster: ThreadPoolExecutor) -> None:
        tasks = dag["dag"]["tasks"]
        order = TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()})
        order.prepare()
        running = {}
        while order.is_active():
            for name in order.get_ready():
                component = self._component(tasks[name])
                inputs = scope.inputs_of(tasks[name])
                if not _holds(tasks[name], inputs):
                    self.told(f"{name}-driver", "SUCCEEDED", "")
                    self.told(name, "SKIPPED", "")
                    order.done(name)
                elif "dag" in component:
                    self.told(f"{name}-driver", "SUCCEEDED", "")
                    self.told(name, "RUNNING", "")
                    try:
                        self._run_dag(component, inputs, cluster)
                    except TaskError:
                        self.told(name, "FAILED", "")
                        raise
                    self.told(name, "SUCCEEDED", "")
                    order.done(name)
                else:
                    running[cluster.submit(self._run_task, name, tasks[name], inputs)] = name
            if not running:
                continue
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                name = running.pop(one)
                scope.made[name] = one.result()
                order.done(name)

    def _component(self, task: dict[str, Any]) -> dict[str, Any]:
        return self.spec["components"][task["componentRef"]["name"]]

    def executor_input(self, name: str, component: dict[str, Any], inputs: Scope, attempt: int = 0) -> dict[str, Any]:
        """Returns what the driver makes of a task's inputs, once, and then the launcher, for each attempt."""
        made = component.get("outputDefinitions", {})
        place = self.places.setdefault(name, str(uuid.uuid4()))
        root = f"{ROOT}/{self.spec['pipelineInfo']['name']}/{self.run_id}/{name}/{place}"
        types = {key: of["artifactType"] for key, of in made.get("artifacts", {}).items()} | {LOGS: LOG_TYPE}
        outputs: dict[str, Any] = {
            "artifacts": {
                key: {
                    "artifacts": [
                        {"name": key, "type": kind, "uri": f"{root}/{key}" + (f"-{attempt}" if key == LOGS else "")}
                    ]
                }
                for key, kind in types.items()
            },
            "outputFile": f"/{root.replace('://', '/')}/output_metadata.json",
        }
        if "parameters" in made:
            outputs["parameters"] = {key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in made["parameters"]}
        given: dict[str, Any] = {}
        if inputs.parameters:
            given["parameterValues"] = inputs.parameters
        if inputs.artifacts:
            given["artifacts"] = {
                key: {"artifacts": [self._handed_on(artifact, key in inputs.of_dag)]}
                for key, artifact in inputs.artifacts.items()
            }
        return {"inputs": given, "outputs": outputs}

    def _handed_on(self, artifact: Artifact, of_dag: bool) -> dict[str, Any]:
        """Returns an artifact as the driver gives it to the next task."""
        if not self.mlmd:
            kind = {"schemaTitle": artifact.schema.get("instanceSchema") or artifact.schema["schemaTitle"]}
            found = {"name": artifact.name, "type": kind, "uri": artifact.uri, "artifactId": artifact.id}
            return found | {"metadata": {key: _whole(value) for key, value in artifact.metadata.items()}}
        added = {"display_name": artifact.name, "store_session_info": SESSION}
        metadata = {key: _of_mlmd(value) for key, value in artifact.metadata.items()} | added
        found = {"name": artifact.id, "uri": artifact.uri, "metadata": metadata}
        # Artifacts that come in through a DAG have no type at all.
        return found if of_dag else found | {"type": {"instanceSchema": ""}}

    def _run_task(self, name: str, task: dict[str, Any], inputs: Scope) -> Made:
        """Runs one task: its driver, and then a pod for each attempt."""
        component, retries = self._component(task), task.get("retryPolicy", {}).get("maxRetryCount", 0)
        ids = [artifact.id for artifact in inputs.artifacts.values()]
        if self.mlmd and len(ids) != len(set(ids)):
            # An event of MLMD is unique by artifact, execution and type.
            self.told(f"{name}-driver", "FAILED", "")
            raise TaskError(name, "failed to lookup existing execution")
        self.told(f"{name}-driver", "SUCCEEDED", "")
        self.told(name, "RUNNING", "")
        for attempt in range(retries + 1):
            node = "executor" if attempt == retries == 0 else f"executor({attempt})"
            self.told(node, "RUNNING", "")
            try:
                made = self._launch(name, component, inputs, attempt)
            except TaskError as error:
                self.told(node, "FAILED", "")
                if attempt == retries:
                    self.told(name, "FAILED", error.output)
                    raise
            else:
                self.told(node, "SUCCEEDED", "")
                self.told(name, "SUCCEEDED", "")
                return made
        raise AssertionError("the last attempt returns or raises")

    def _launch(self, name: str, component: dict[str, Any], inputs: Scope, attempt: int) -> Made:
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        pod = self.folder / f"{self.run_id}-{name}-{attempt}"
        (pod / "cwd").mkdir(parents=True)
        (pod / "dev").mkdir()
        (pod / "dev" / "termination-log").touch()
        given = self.executor_input(name, component, inputs, attempt)
        for artifact in inputs.artifacts.values():
            self._download(artifact.uri, pod)
        for parameter in given["outputs"].get("parameters", {}).values():
            parameter["outputFile"] = _below(pod, parameter["outputFile"])
            Path(parameter["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
        given["outputs"]["outputFile"] = _below(pod, given["outputs"]["outputFile"])
        for of in given["outputs"]["artifacts"].values():
            _place(of["artifacts"][0]["uri"], pod).parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            self._command(name, container, given),
            cwd=pod / "cwd",
            env=self._pod_environment(component["executorLabel"], container, pod),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        log = _place(given["outputs"]["artifacts"][LOGS]["artifacts"][0]["uri"], pod)
        log.write_text(done.stdout)
        self.logs.setdefault(name, []).append(done.stdout)
        if done.returncode:
            self._upload(given["outputs"]["artifacts"][LOGS]["artifacts"][0]["uri"], pod)
            raise TaskError(name, (pod / "dev" / "termination-log").read_text() or f"exit status {done.returncode}")
        return self._publish(name, component, given, pod)

    def _command(self, name: str, container: dict[str, Any], given: dict[str, Any]) -> list[str]:
        text = json.dumps(given)
        command = [part.replace("{{$}}", text) for part in [*container["command"], *container.get("args", [])]]
        assert command[:2] == ["python", "-m"], command
        return [sys.executable, *command[1:]] if name in self.own_processes else forking.command(*command[2:])

    def _pod_environment(self, label: str, container: dict[str, Any], pod: Path) -> dict[str, str]:
        variables = {of["name"]: of["value"] for of in container.get("env", [])}
        for platform in self.documents[1:]:
            executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
            for secret in executors.get(label, {}).get("secretAsEnv", []):
                keys = self.secrets[secret["secretName"]]
                variables |= {of["envVar"]: keys[of["secretKey"]] for of in secret["keyToEnv"]}
        fixed = {"HOME": str(pod), "PATH": os.defpath, "STILLHOUSE_LAUNCHER_ROOT": str(pod), "TMPDIR": str(pod)}
        return self.environment | variables | fixed

    def _publish(self, name: str, component: dict[str, Any], given: dict[str, Any], pod: Path) -> Made:
        output_file, output = Path(given["outputs"]["outputFile"]), {}
        if output_file.exists():
            text = output_file.read_text()
            json_format.Parse(text, pipeline_spec_pb2.ExecutorOutput())  # strictly: unknown fields fail
            output = json.loads(text)
        made = Made()
        for key, of in given["outputs"].get("parameters", {}).items():
            reported = output.get("parameterValues", {})
            made.parameters[key] = reported[key] if key in reported else Path(of["outputFile"]).read_text()
        for key, several in given["outputs"]["artifacts"].items():
            (artifact,) = several["artifacts"]
            (reported,) = output.get("artifacts", {}).get(key, {"artifacts": [{}]})["artifacts"]
            uri = reported.get("uri") or artifact["uri"]
            if not self._upload(uri, pod):
                if not self.mlmd:
                    raise TaskError(name, f'declared output artifact "{key}" is missing')
                self.warnings.append(f'{name}: Local filepath "{key}" does not exist')
            kind = LOG_TYPE if key == LOGS else component["outputDefinitions"]["artifacts"][key]["artifactType"]
            made.artifacts[key] = Artifact(
                id=str(next(self.ids)) if self.mlmd else str(uuid.uuid4()),
                name=key,
                uri=uri,
                schema=kind,
                metadata=reported.get("metadata", {}),
            )
            self.artifacts[name, key] = made.artifacts[key]
        return made

    def _download(self, uri: str, pod: Path) -> None:
        key = _key(uri)
        for found in self.store.keys(key):
            if found == key or found.startswith(f"{key}/"):
                self.store.download(found, Path(f"{_place(uri, pod)}{found.removeprefix(key)}"))

    def _upload(self, uri: str, pod: Path) -> bool:
        """Uploads a file, or the files in a folder; returns whether there is one of them."""
        source = _place(uri, pod)
        for path in [source, *source.rglob("*")]:
            if path.is_file():
                self.store.write(f"{_key(uri)}{str(path).removeprefix(str(source))}", path.read_bytes())
        return source.exists()


def _key(uri: str) -> str:
    prefix = f"{SCHEME}{BUCKET}/"
    assert uri.startswith(prefix), uri
    return uri.removeprefix(prefix)


def _below(pod: Path, path: str) -> str:
    return f"{pod}{path}"


def _place(uri: str, pod: Path) -> Path:
    assert uri.startswith(SCHEME), uri
    return pod / FOLDER / uri.removeprefix(SCHEME)


def _whole(value: Any) -> Any:
    """Returns a number as protojson prints it."""
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _of_mlmd(value: Any) -> Any:
    return {"struct": _whole(value)} if isinstance(value, Mapping) else _whole(value)


def _holds(task: dict[str, Any], inputs: Scope) -> bool:
    """Tells whether the trigger policy of a task lets it run; of the conditions, those that say `is equal`."""
    condition = task.get("triggerPolicy", {}).get("condition")
    if condition is None:
        return True
    name, value = re.fullmatch(r"inputs\.parameter_values\['(.+)'\] == '(.*)'", condition).groups()
    return inputs.parameters[name] == value
