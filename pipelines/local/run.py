"""Runs a pipeline on this machine, by TFX's LocalDagRunner."""

import errno
import json
import os
import shlex
import shutil
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import tensorflow as tf
import tf_keras as keras
import yaml
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from stillhouse.components.dark_knowledge import DarkKnowledgeReport
from stillhouse.components.last_pushed.versions import NONE, version_of
from stillhouse.components.report import Comparison
from stillhouse.components.report.executor import COMPARISON
from stillhouse.components.report.page import DETAILS, PAGE, render
from stillhouse.modules.atomic import new_folder, remove_leftovers, write_text
from stillhouse.modules.cluster.strategies import prepare_devices
from stillhouse.modules.distillation.objectives import find_objective
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.large_models.check import check_network
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.imported import saved_width
from stillhouse.modules.models.layers import layer_output
from stillhouse.modules.models.task import build_model, find_augment, load_task
from stillhouse.modules.models.teachers import check_widths
from stillhouse.modules.settings import Pretraining, Settings, Training
from stillhouse.pipelines.dag.commit import commit_of
from stillhouse.pipelines.dag.create import create_pipeline, saved_teachers, sqlite
from stillhouse.pipelines.dag.nodes import Place
from stillhouse.pipelines.local.data_check import check_data, check_transfer, find_fault
from stillhouse.pipelines.local.run_view import RunView
from stillhouse.pipelines.local.unchanged import last_comparison, lost_push

METADATA = "metadata.sqlite"  # below a run's root
DURATIONS = ".durations.json"  # below a run's root
SETTINGS = "settings.yaml"  # below a run's root: all that it ran with
DARK_KNOWLEDGE_FOLDER = "dark_knowledge"  # below a run's root
# A run that fails on a disk with less than this has failed for want of space.
LEAST_FREE_BYTES = 1 << 18
# Beam's own runner in this process. Without a word its DirectRunner looks for Prism first, a binary to download.
LOCAL_BEAM_OPTIONS = (
    "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    # This runner has no containers. Where no way is named by which workers get TFX, every executor packs TFX's sources
    # for them: two seconds and 48 MB in the temporary folder that nobody removes.
    "--sdk_container_image=none",
)


def check_settings(settings: Settings) -> None:
    """Checks all that can be checked without running: data files and label column, task module.

    Raises:
      UserError: the first thing that is not as the settings say.
    """
    check_data(settings.data)
    check_transfer(settings.data)
    load_task(settings.task)
    head, existing = HEADS[settings.head], saved_teachers(settings, _saved_models(settings))
    find_objective(settings.objective, settings.head)
    if any(training.augment for training in settings.trainings()):
        find_augment(settings.task)

    def built(training: Training, who: str) -> keras.Model:
        masked = isinstance(training, Pretraining)
        model = build_model(settings.task, settings.builder_of(training), training.hyperparameters, masked=masked)
        check_network(model, training.memory, training.parallelism, who)
        return model

    pretrained = {name: built(of, f"Pretraining.{name}") for name, of in settings.pretraining.items()}
    for name, of in settings.pretraining.items():
        for hint in of.distillation.hints if of.distillation else []:
            layer_output(pretrained[of.distillation.teacher], hint.teacher_layer, of.distillation.teacher)
            layer_output(pretrained[name], hint.student_layer, name)
    student = built(settings.student, "Student")
    teachers = {}  # a kind is built once, whatever the number of its copies
    for of in settings.teachers:
        model = None if of.saved_model else built(of, f"Teacher-{len(teachers) + 1}")
        for _ in range(of.copies):
            teachers[f"Teacher-{len(teachers) + 1}"] = model
    widths = {
        name: saved_width(existing[name], head) if model is None else head.width(model.output_shape[-1])
        for name, model in teachers.items()
    }
    check_widths(widths, head.width(student.output_shape[-1]))
    for hint in settings.student.distillation.hints:
        name = f"Teacher-{hint.teacher}"
        layer_output(teachers[name], hint.teacher_layer, name)
        layer_output(student, hint.student_layer, "the student")


def _saved_models(settings: Settings) -> dict[str, str]:
    """Returns where each teachers[].saved_model is; a path with a scheme is taken as it is."""
    paths = [teacher.saved_model for teacher in settings.teachers if teacher.saved_model]
    return {path: path if "://" in path else os.path.abspath(path) for path in paths}


def local_place(settings: Settings, root: Path) -> Place:
    """Returns where a local run of the settings under `root` reads and writes."""
    root = root.absolute()
    return Place(
        root=str(root / "artifacts"),
        checkpoints=str(root / "artifacts" / "checkpoints"),
        cache=str(root / "artifacts" / "input_cache"),
        data_path=os.path.abspath(settings.data.path),
        push_path=os.path.abspath(settings.push.path),
        metadata_path=str(root / METADATA),
        transfer_path=os.path.abspath(settings.data.transfer) if settings.data.transfer else None,
        saved_models=_saved_models(settings),
        schema_path=os.path.abspath(settings.data.schema_file) if settings.data.schema_file else None,
        lost_push=lost_push(last_comparison(root)),
        beam_options=settings.beam.options or list(LOCAL_BEAM_OPTIONS),
        commit=commit_of(Path()),
    )


def run(settings: Settings, root: Path, view: RunView) -> dict[str, Any]:
    """Runs the pipeline to its end and returns the comparison.

    It also leaves it in root/comparison.json, and the page that shows it in root/report.html.

    Nodes whose inputs, settings and code have not changed come from TFX's cache.

    Args:
      settings: the pipeline.
      root: folder of artifacts, metadata and comparison.json; made if it is missing.
      view: is told which node runs and how far it is.

    Raises:
      UserError: something that the user can mend; what is being served is untouched.
    """
    prepare_devices(settings.devices())  # before anything else touches TensorFlow
    check_settings(settings)
    with _locked(root):
        for name in (DURATIONS, DARK_KNOWLEDGE_FOLDER, COMPARISON, SETTINGS, PAGE):
            remove_leftovers(root / name)
        view.expected = _durations(root)
        place = local_place(settings, root)
        pipeline = create_pipeline(settings, place)
        try:
            with view:
                LocalDagRunner().run(pipeline)
        except Exception as error:
            _explain(error, view.node, settings, root)
            raise
        write_text(root / DURATIONS, json.dumps(view.expected | view.seconds))
        run_id, outputs = _newest_run(place)
        comparison = _finished_comparison(place, run_id, outputs)
        _replace_folder(root / DARK_KNOWLEDGE_FOLDER, outputs.get(("DarkKnowledge", DarkKnowledgeReport.TYPE_NAME)))
        write_text(root / COMPARISON, json.dumps(comparison, indent=1))
        write_text(root / SETTINGS, yaml.safe_dump(comparison["settings"], sort_keys=False))
        details = json.loads(Path(outputs["Report", Comparison.TYPE_NAME], DETAILS).read_text())
        again = f"stillhouse run {shlex.quote(str(root / SETTINGS))} --root {shlex.quote(str(root))}"
        write_text(root / PAGE, render(comparison, details, again))
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


def _durations(root: Path) -> dict[str, float]:
    """Returns the seconds that each node took when it ran the last time."""
    try:
        return json.loads((root / DURATIONS).read_text())
    except (FileNotFoundError, ValueError):  # they are for the eye only
        return {}


def _newest_run(place: Place) -> tuple[str, dict[tuple[str, str], str]]:
    """Returns the id of the newest run in the metadata store, and {(node, artifact type): URI} of its outputs."""
    with metadata.Metadata(sqlite(place.metadata_path)) as handle:
        store = handle.store
        newest = max(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
        outputs = {}
        for execution in store.get_executions_by_context(newest.id):
            for event in store.get_events_by_execution_ids([execution.id]):
                if event.type == metadata_store_pb2.Event.OUTPUT:
                    artifact = store.get_artifacts_by_id([event.artifact_id])[0]
                    # TFX's layout: .../NODE/OUTPUT/EXECUTION
                    outputs[Path(artifact.uri).parts[-3], artifact.type] = artifact.uri
    return newest.name, outputs


def _finished_comparison(place: Place, run_id: str, outputs: dict[tuple[str, str], str]) -> dict[str, Any]:
    """Returns the comparison of a run, with its run_id."""
    report = outputs["Report", Comparison.TYPE_NAME]
    comparison = json.loads(Path(report, COMPARISON).read_text())
    if comparison["pushed"] and not os.path.isdir(comparison["pushed"]):
        student = outputs["Student", standard_artifacts.Model.TYPE_NAME]
        version = version_of(place.push_path, path_utils.serving_model_path(student))
        comparison["pushed"] = None if version == NONE else os.path.join(place.push_path, version)
    return {"pipeline": comparison.pop("pipeline"), "run_id": run_id, **comparison}


def _replace_folder(folder: Path, source: str | None) -> None:
    """Puts a copy of the folder `source` in the place of `folder`; takes it away if there is no source."""
    if source is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    with new_folder(folder, replace=True) as unfinished:
        shutil.copytree(source, unfinished, dirs_exist_ok=True)


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
    if "file is not a database" in text or "database disk image is malformed" in text:  # SQLite's words
        raise MachineError(
            f"{root / METADATA}: the metadata store is damaged; remove {root}, or choose another --root: the run then "
            "starts from the beginning"
        ) from error
    no_space = any(isinstance(link, OSError) and link.errno == errno.ENOSPC for link in chain)
    # What SQLite says when it runs out of space depends on the moment, so the disk itself is asked too.
    no_space = no_space or shutil.disk_usage(root).free < LEAST_FREE_BYTES
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
