"""Runs a pipeline on this machine, by TFX's LocalDagRunner."""

import json
import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import yaml
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from stillhouse.components.dark_knowledge import DarkKnowledgeReport
from stillhouse.components.report import Comparison
from stillhouse.components.report.executor import COMPARISON
from stillhouse.components.report.page import DETAILS, PAGE, render
from stillhouse.modules.atomic import new_folder, refuse_links, refuse_links_below, remove, remove_leftovers, write_text
from stillhouse.modules.cluster.strategies import prepare_devices
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes.versions import served_folder
from stillhouse.modules.settings import Settings
from stillhouse.pipelines.dag.create import create_pipeline, sqlite
from stillhouse.pipelines.dag.nodes import PipelinePaths
from stillhouse.pipelines.local.check import check_settings
from stillhouse.pipelines.local.failures import explain
from stillhouse.pipelines.local.leftovers import remove_unfinished
from stillhouse.pipelines.local.metadata_check import check_metadata
from stillhouse.pipelines.local.paths import ARTIFACTS, METADATA, check_root, local_paths
from stillhouse.pipelines.local.run_view import RunView

DURATIONS = ".durations.json"  # below a run's root
SETTINGS = "settings.yaml"  # below a run's root: all that it ran with
DARK_KNOWLEDGE_FOLDER = "dark_knowledge"  # below a run's root


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
    check_root(root)
    prepare_devices(settings.devices())  # before anything else touches TensorFlow
    check_settings(settings)
    with _locked(root):
        for name in (DURATIONS, DARK_KNOWLEDGE_FOLDER, COMPARISON, SETTINGS, PAGE, METADATA):
            remove_leftovers(root / name)
        refuse_links_below(root / ARTIFACTS)
        check_metadata(root)
        remove_unfinished(root)
        view.expected = _durations(root)
        paths = local_paths(settings, root)
        pipeline = create_pipeline(settings, paths)
        try:
            with view:
                LocalDagRunner().run(pipeline)
        except Exception as error:
            explain(error, view.node, settings, root)
            raise
        write_text(root / DURATIONS, json.dumps(view.expected | view.seconds))
        run_id, outputs = _newest_run(paths)
        comparison = _finished_comparison(paths, run_id, outputs)
        _replace_folder(root / DARK_KNOWLEDGE_FOLDER, outputs.get(("DarkKnowledge", DarkKnowledgeReport.TYPE_NAME)))
        write_text(root / COMPARISON, json.dumps(comparison, indent=1))
        write_text(root / SETTINGS, yaml.safe_dump(comparison["settings"], sort_keys=False))
        details = json.loads(Path(outputs["Report", Comparison.TYPE_NAME], DETAILS).read_text())
        again = f"stillhouse run {shlex.quote(str(root / SETTINGS))} --root {shlex.quote(str(root))}"
        write_text(root / PAGE, render(comparison, details, again))
        return comparison


@contextmanager
def _locked(root: Path):
    for name in (".lock", METADATA, ARTIFACTS):
        refuse_links(root / name, below=root)
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


def _newest_run(paths: PipelinePaths) -> tuple[str, dict[tuple[str, str], str]]:
    """Returns the id of the newest run in the metadata store, and {(node, artifact type): URI} of its outputs."""
    with metadata.Metadata(sqlite(paths.metadata_path)) as handle:
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


def _finished_comparison(paths: PipelinePaths, run_id: str, outputs: dict[tuple[str, str], str]) -> dict[str, Any]:
    """Returns the comparison of a run, with its run_id and the version that is served when it ends."""
    report = outputs["Report", Comparison.TYPE_NAME]
    comparison = json.loads(Path(report, COMPARISON).read_text())
    served = served_folder(paths.push_path)
    return {"pipeline": comparison.pop("pipeline"), "run_id": run_id, **comparison, "served": served}


def _replace_folder(folder: Path, source: str | None) -> None:
    """Puts a copy of the folder `source` in the place of `folder`; removes it if there is no source."""
    if source is None:
        remove(folder)
        return
    with new_folder(folder, replace=True) as unfinished:
        shutil.copytree(source, unfinished, dirs_exist_ok=True)
