"""Results of earlier runs, taken in the place of running a task again.

Kubeflow's own cache takes nothing from another run: its key holds the ids of a task's inputs, and the first task, which
looks at the data, always runs. Here a task is known by what it does: its code and the libraries as they are in the
container, its parameters, and the content of its inputs, wherever they came from.

A record is one small object below the pipeline root. It says where a run has left the outputs of a task, and size and
SHA-256 of every file. The launcher uploads outputs when the task has ended, after its record is written, and somebody
may delete them later; so whoever takes a result checks every file while it is copied. What is missing or different is
no result, and the task runs. Two runs that write the same record write the same result.

  ROOT/.stillhouse/PIPELINE/TASK/KEY.json    a record
  ROOT/.stillhouse/PIPELINE/TASK/latest.json what the key of the newest was made of, to tell what has changed
"""

import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError
from tfx.dsl.io import fileio

from stillhouse.components.base import TAKEN_FROM
from stillhouse.components.imported_teacher import ImportedTeacher
from stillhouse.components.span_window_example_gen.window import SEPARATOR
from stillhouse.modules.atomic import new_folder
from stillhouse.modules.code_fingerprint import OWN_PACKAGE, code_fingerprint
from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.object_storage import PIECE, NotFoundError, ObjectStorage

FOLDER = ".stillhouse"
LATEST = "latest.json"
FORMAT = 1  # of keys and records
# What the backend or the runs add to an artifact, which its users do not look at; the fingerprint of the data is made
# of times, and their content counts.
PASSING = ("display_name", "store_session_info", "tfx_version", "input_fingerprint", TAKEN_FROM)
LIBRARIES = (
    "stillhouse",
    "tfx",
    "tensorflow",
    "tf-keras",
    "tensorflow-transform",
    "tensorflow-data-validation",
    "tensorflow-model-analysis",
    "tfx-bsl",
    "apache-beam",
    "numpy",
)


class File(BaseModel):
    """A file of an artifact."""

    path: str
    size: int
    sha256: str


class Output(BaseModel):
    """An artifact that a task has made."""

    uri: str
    metadata: dict[str, Any]
    files: list[File]


class Record(BaseModel):
    """The outputs of a task, by name."""

    outputs: dict[str, Output]


@dataclass(frozen=True)
class Task:
    """A task that may have been done before.

    Attributes:
      folder: URI below which its records are.
      executor: class path of its executor.
      parameters: its execution properties.
      inputs: for each input artifact its name and number, metadata and local folder.
      outputs: names of the artifacts that it makes.
      outside: files that it reads besides its inputs: data, a schema, a SavedModel.
      omitted: functions of the user's task module that do not concern it.
    """

    folder: str
    executor: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[Mapping[str, Any], str]]
    outputs: tuple[str, ...]
    outside: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Returns all that the outputs depend on."""
        return {
            "format": FORMAT,
            "libraries": {**_versions(), "python": ".".join(map(str, sys.version_info[:2]))},
            "code": {module: code_fingerprint(module, without) for module, without in self._modules()},
            "parameters": dict(self.parameters),
            "inputs": {
                name: {
                    "properties": {key: value for key, value in metadata.items() if key not in PASSING},
                    "files": [file.model_dump() for file in files_of(folder)],
                }
                for name, (metadata, folder) in self.inputs.items()
            },
            "outside": {path: _sha256(path) for path in self.outside},
            "outputs": list(self.outputs),
        }

    def _modules(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Gives the modules with the task's code, and what to leave out of each: ours, and those of the user."""
        executor = self.executor.rpartition(".")[0]
        if executor.partition(".")[0] == OWN_PACKAGE:
            yield executor, ()
        for name in ("run_fn", "preprocessing_fn"):
            if name in self.parameters:
                module = self.parameters[name].rpartition(".")[0]
                yield module, self.omitted if name == "preprocessing_fn" else ()
        config = json.loads(self.parameters.get("custom_config") or "{}")
        if "task" in config:
            yield config["task"], self.omitted
        views = json.loads(self.parameters.get("views") or "null") or {}
        if views.get("augment"):
            yield views["task"], self.omitted
        objective = (config.get("distillation") or {}).get("objective", "")
        if "." in objective:
            yield objective.rpartition(".")[0], ()


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def key_of(facts: Mapping[str, Any]) -> str:
    """Returns the name under which a result is recorded."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def files_of(folder: str) -> list[File]:
    """Returns the files in a folder, which may be missing, in the order of their names."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [
        File(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=_sha256(str(path)))
        for path in paths
    ]


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with fileio.open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def outside_files(executor: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the files that a task reads besides its inputs.

    Args:
      executor: class path.
      parameters: execution properties; of an ExampleGen those that its driver has resolved.
    """
    if "input_config" in parameters:
        patterns = [split["pattern"] for split in json.loads(parameters["input_config"])["splits"]]
        paths = [
            os.path.join(parameters["input_base"], one) for pattern in patterns for one in pattern.split(SEPARATOR)
        ]
        files = {os.fsdecode(file) for path in paths for file in fileio.glob(path)}
        return tuple(sorted(file for file in files if not fileio.isdir(file)))
    if "schema_file" in parameters:
        return (parameters["schema_file"],)
    if executor.startswith(f"{ImportedTeacher.__module__.rpartition('.')[0]}."):
        folder = json.loads(parameters["teacher"])["path"]
        found = [(os.fsdecode(place), os.fsdecode(name)) for place, _, names in fileio.walk(folder) for name in names]
        return tuple(sorted(os.path.join(place, name) for place, name in found))
    return ()


def take(
    storage: ObjectStorage, task: Task, facts: Mapping[str, Any], folders: Mapping[str, str]
) -> dict[str, dict[str, Any]] | None:
    """Copies what an earlier run has left into the folders of a task's outputs, all or nothing.

    Args:
      storage: where records and results are.
      task: which.
      facts: what it depends on.
      folders: where its outputs go, by name; they do not exist.

    Returns:
      The metadata of the outputs, by name; None: there is no such result.

    Raises:
      UserError: the storage cannot be reached.
    """
    uri = f"{task.folder}/{key_of(facts)}.json"
    try:
        record = Record.model_validate_json(storage.read(uri))
    except NotFoundError:
        print(f"no result of an earlier run: {_changes(storage, task, facts)}", flush=True)
        return None
    except ValidationError as error:
        print(f"no result of an earlier run: {uri} is damaged: {error.errors()[0]['msg']}", flush=True)
        return None
    try:
        if record.outputs.keys() != folders.keys():
            raise NotFoundError(f"{uri} has other outputs")
        with ExitStack() as stack:
            for name, output in record.outputs.items():
                unfinished = stack.enter_context(new_folder(folders[name]))
                for file in output.files:
                    _copy(storage, output.uri, file, unfinished)
    except NotFoundError as error:
        print(f"no result of an earlier run: {error} is gone or was changed since {uri} was written", flush=True)
        return None
    for name, output in record.outputs.items():
        print(f"{name}: taken from {output.uri}; code, parameters and inputs are those of that run", flush=True)
    return {name: output.metadata | {TAKEN_FROM: output.uri} for name, output in record.outputs.items()}


def _copy(storage: ObjectStorage, uri: str, file: File, folder: str) -> None:
    relative = PurePosixPath(file.path)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{uri}: a record names the file {file.path!r}; expected one below the artifact")
    path = Path(folder, relative)
    path.parent.mkdir(parents=True, exist_ok=True)
    if storage.download(f"{uri}/{file.path}", str(path)) != (file.size, file.sha256):
        raise NotFoundError(f"{uri}/{file.path}")


def remember(
    storage: ObjectStorage, task: Task, facts: Mapping[str, Any], outputs: Mapping[str, tuple[str, Mapping, str]]
) -> None:
    """Records what a task has made.

    Args:
      storage: where records are.
      task: which.
      facts: what it depends on, as they were before it ran.
      outputs: by name the URI that an output will have, its metadata, and its local folder.

    Raises:
      UserError: the storage cannot be reached.
    """
    record = Record(
        outputs={
            name: Output(uri=uri, metadata=dict(metadata), files=files_of(folder))
            for name, (uri, metadata, folder) in outputs.items()
        }
    )
    storage.write(f"{task.folder}/{key_of(facts)}.json", record.model_dump_json().encode())
    storage.write(f"{task.folder}/{LATEST}", json.dumps(facts).encode())


def _changes(storage: ObjectStorage, task: Task, facts: Mapping[str, Any]) -> str:
    """Returns what is different from the newest result of the task, for people."""
    try:
        latest = json.loads(storage.read(f"{task.folder}/{LATEST}"))
    except NotFoundError:
        return "this task has never ended here"
    except ValueError:
        return f"{task.folder}/{LATEST} is damaged"
    changed = [name for name in facts if latest.get(name) != json.loads(json.dumps(facts[name]))]
    told = []
    for name in changed:
        now, then = facts[name], latest.get(name)
        if isinstance(now, dict) and isinstance(then, dict):
            keys = [key for key in {**now, **then} if now.get(key) != then.get(key)]
            told.append(f"{name} ({', '.join(keys)})")
        else:
            told.append(name)
    return f"changed since the last: {'; '.join(told) or 'nothing, but that result is not there'}"


def folder_of(root: str, pipeline: str, task: str) -> str:
    """Returns the URI below which the records of a task are."""
    return "/".join((root.rstrip("/"), FOLDER, pipeline, task))


def local_inputs(artifacts: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Mapping[str, Any], str]]:
    """Returns the inputs of a task as `Task` has them, from an ExecutorInput whose URIs are folders."""
    return {
        f"{name}[{number}]": (artifact.get("metadata", {}), os.fspath(artifact["uri"]))
        for name, several in artifacts.items()
        for number, artifact in enumerate(several["artifacts"])
    }
