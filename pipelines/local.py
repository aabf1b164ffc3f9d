"""Runs a pipeline on this machine, by TFX's LocalDagRunner."""

import errno
import json
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.last_pushed.versions import NONE, version_of
from components.report.executor import COMPARISON
from modules.errors import MachineError, UserError
from modules.strategies import prepare_devices
from modules.task import build_model, load_task
from pipelines.data_check import check_data, find_fault
from pipelines.distillation import Place, create_pipeline, sqlite
from pipelines.run_view import RunView
from pipelines.settings import Settings

# Beam's own runner in this process. Without a word its DirectRunner looks for Prism first, a binary to download.
LOCAL_BEAM_OPTIONS = ("--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",)


def check_settings(settings: Settings) -> None:
    """Checks all that can be checked without running: data files and label column, task module.

    Raises:
      UserError: the first thing that is not as the settings say.
    """
    check_data(settings.data)
    load_task(settings.task)
    for teacher in settings.teachers:
        build_model(settings.task, "build_teacher", teacher.hyperparameters)
    build_model(settings.task, "build_student", settings.student.hyperparameters)


def local_place(settings: Settings, root: Path) -> Place:
    """Returns where a local run of the settings under `root` reads and writes."""
    root = root.absolute()
    return Place(
        root=str(root / "artifacts"),
        data_path=os.path.abspath(settings.data.path),
        push_path=os.path.abspath(settings.push.path),
        metadata_path=str(root / "metadata.sqlite"),
        schema_path=os.path.abspath(settings.data.schema_file) if settings.data.schema_file else None,
        lost_push=_lost_push(root),
        beam_options=settings.beam.options or list(LOCAL_BEAM_OPTIONS),
    )


def run(settings: Settings, root: Path, view: RunView) -> dict[str, Any]:
    """Runs the pipeline to its end and returns the comparison, which it also leaves in root/comparison.json.

    Nodes whose inputs, settings and code have not changed come from TFX's cache.

    Args:
      settings: the pipeline.
      root: folder of artifacts, metadata and comparison.json; made if it is missing.
      view: is told which node runs and how far it is.

    Raises:
      UserError: something that the user can mend; what is being served is untouched.
    """
    prepare_devices(settings.replicas())  # before anything else touches TensorFlow
    check_settings(settings)
    with _locked(root):
        place = local_place(settings, root)
        pipeline = create_pipeline(settings, place)
        try:
            with view:
                LocalDagRunner().run(pipeline)
        except Exception as error:
            _explain(error, view.node, settings, root)
            raise
        comparison = _finished_comparison(place)
        _write_atomically(root / COMPARISON, json.dumps(comparison, indent=1))
        return comparison


@contextmanager
def _locked(root: Path):
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(root / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise MachineError(
            f"{root}: another run is using this folder; wait for it, or choose another --root"
        ) from error
    except OSError as error:
        raise UserError(f"{root}: cannot be written: {error.strerror}; choose another --root") from error
    with lock:
        yield


def _lost_push(root: Path) -> str | None:
    """Returns the push that the last comparison tells of, if somebody has removed it since."""
    try:
        pushed = json.loads((root / COMPARISON).read_text())["pushed"]
    except FileNotFoundError:
        return None
    return pushed if pushed and not os.path.isdir(pushed) else None


def _finished_comparison(place: Place) -> dict[str, Any]:
    """Returns the comparison of the newest run in the metadata store, with its run_id."""
    with metadata.Metadata(sqlite(place.metadata_path)) as handle:
        store = handle.store
        newest = max(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
        outputs = {}
        for execution in store.get_executions_by_context(newest.id):
            for event in store.get_events_by_execution_ids([execution.id]):
                if event.type == metadata_store_pb2.Event.OUTPUT:
                    artifact = store.get_artifacts_by_id([event.artifact_id])[0]
                    outputs[execution.type.rpartition(".")[2], artifact.type] = artifact.uri
    report = outputs["Report", "Comparison"]
    comparison = json.loads(Path(report, COMPARISON).read_text())
    if comparison["pushed"] and not os.path.isdir(comparison["pushed"]):
        student = outputs["DistillationTrainer", standard_artifacts.Model.TYPE_NAME]
        version = version_of(place.push_path, path_utils.serving_model_path(student))
        comparison["pushed"] = None if version == NONE else os.path.join(place.push_path, version)
    return {"pipeline": comparison.pop("pipeline"), "run_id": newest.name, **comparison}


def _write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _chain(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _explain(error: Exception, node: str | None, settings: Settings, root: Path) -> None:
    """Raises the UserError that explains why `node` failed; returns if it is a defect of ours."""
    chain = _chain(error)
    for link in chain:
        if isinstance(link, UserError):
            raise type(link)(f"{node}: {link}") from error
    text = "\n".join(str(link) for link in chain)
    no_space = any(isinstance(link, OSError) and link.errno == errno.ENOSPC for link in chain)
    if no_space or "No space left on device" in text or "disk is full" in text or "disk I/O error" in text:
        raise MachineError(f"{node}: no space left on the disk of {root}; make room and run again") from error
    denied = any(isinstance(link, PermissionError) for link in chain) or any(
        isinstance(link, tf.errors.PermissionDeniedError) for link in chain
    )
    if denied or "readonly database" in text or "Read-only file system" in text:
        raise UserError(f"{node}: cannot write: {chain[-1]}; check --root ({root}) and push.path") from error
    if node == "ExampleGen":
        try:
            find_fault(settings.data)
        except UserError as fault:
            raise UserError(f"{node}: {fault}") from error
    source = sys.modules[settings.task].__file__
    for link in chain:
        in_task = [frame for frame in traceback.extract_tb(link.__traceback__) if frame.filename == source]
        if in_task:
            reason = f"{type(link).__name__}: {next(iter(str(link).splitlines()), '')}"
            place = f"{source}:{in_task[-1].lineno}"
            raise UserError(f"{node}: {settings.task}.{in_task[0].name} raised {reason} (at {place})") from error
