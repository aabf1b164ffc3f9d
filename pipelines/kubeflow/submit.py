"""Starts a run on Kubeflow Pipelines, and follows it. What is there already is taken, not made twice."""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Kubeflow, Settings, apply_override, parse_settings
from stillhouse.pipelines.kubeflow.api import (
    Experiment,
    Experiments,
    Pipeline,
    Pipelines,
    PipelineVersion,
    PipelineVersions,
    Run,
    Runs,
)
from stillhouse.pipelines.kubeflow.connection import Server
from stillhouse.pipelines.kubeflow.only_if_changed import RETRAIN
from stillhouse.pipelines.kubeflow.parameters import NEWEST, SPAN, setting_keys
from stillhouse.pipelines.kubeflow.paths import kubeflow_paths

DIGITS_OF_HASH = 12
EQUALS = 1  # of the API's filters
SECONDS_BETWEEN_LOOKS = 5.0
FAILURES = ("FAILED", "ERROR")
FINISHED = (*FAILURES, "SUCCEEDED", "SKIPPED", "CANCELED", "CACHED")


@dataclass(frozen=True)
class Submitted:
    """A run on the server."""

    run_id: str
    pipeline_id: str
    version_id: str
    version: str
    experiment_id: str
    link: str

    def to_dict(self) -> dict[str, str]:
        """Returns it as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class RunOptions:
    """What a run is started with, besides parameters: what pipelines of other settings may share."""

    root: str  # where artifacts are kept
    service_account: str | None = None
    plugins_input: dict[str, Any] | None = None

    @classmethod
    def of(cls, kubeflow: Kubeflow) -> "RunOptions":
        """Returns those of the settings."""
        mlflow = kubeflow.mlflow.model_dump(exclude_none=True) if kubeflow.mlflow else None
        return cls(kubeflow.pipeline_root, kubeflow.service_account, {"mlflow": mlflow} if mlflow else None)

    def fields(self) -> dict[str, Any]:
        """Returns those fields of a run or a recurring run that are set."""
        fields = {"service_account": self.service_account, "plugins_input": self.plugins_input}
        return {name: value for name, value in fields.items() if value}


def named(name: str) -> str:
    """Returns the filter for things of this name."""
    return json.dumps({"predicates": [{"operation": EQUALS, "key": "display_name", "stringValue": name}]})


def version_name(name: str, text: str) -> str:
    """Returns the name of a pipeline's version: the hash of its content is in it."""
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS_OF_HASH]}"


def check_parameters(arguments: list[str], spec: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Returns the values of --parameter NAME=VALUE, in the types that the pipeline wants.

    Raises:
      UserError: there is no such parameter, or the value is of another type or one that the settings would not take.
    """
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    keys = setting_keys(settings)
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in parameters:
            raise UserError(f"--parameter {argument}: expected NAME=VALUE with one of: {', '.join(sorted(parameters))}")
        if name in values:
            raise UserError(f"--parameter {argument}: {name} is given twice; expected one value")
        values[name] = _typed(argument, name, value, parameters[name]["parameterType"])
        if name == SPAN and values[name] < NEWEST:
            raise UserError(f"--parameter {argument}: expected a span, 0 or more, or {NEWEST} for the newest")
        if name in keys:
            raw = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
            apply_override(raw, f"{keys[name]}={json.dumps(values[name])}")
            changed = parse_settings(raw, f"--parameter {argument}")
            try:
                kubeflow_paths(changed)
            except UserError as error:
                raise UserError(f"--parameter {argument}: {error}") from error
    return values


def _typed(argument: str, name: str, value: str, kind: str) -> Any:
    if kind == "NUMBER_INTEGER":
        try:
            return int(value)
        except ValueError as error:
            raise UserError(f"--parameter {argument}: {name} is an integer") from error
    if kind == "BOOLEAN":
        if value not in ("true", "false"):
            raise UserError(f"--parameter {argument}: {name} is true or false")
        return value == "true"
    return value


def find_pipeline(server: Server, name: str) -> Pipeline | None:
    """Returns the pipeline of this name, or None."""
    found = server.listed("pipelines", Pipelines, filter=named(name), namespace=server.connection.namespace)
    return next((pipeline for pipeline in found if pipeline.display_name == name), None)


def find_version(server: Server, pipeline_id: str, name: str) -> PipelineVersion | None:
    """Returns the version of this name, or None."""
    found = server.listed(f"pipelines/{pipeline_id}/versions", PipelineVersions)
    return next((version for version in found if version.display_name == name), None)


def upload(server: Server, name: str, text: str) -> PipelineVersion:
    """Returns the pipeline's version with this content, which is uploaded if the server has not got it."""
    version = version_name(name, text)
    pipeline = server.read("looking for the pipeline", lambda: find_pipeline(server, name))
    if pipeline is None:
        body = {"display_name": name, "namespace": server.connection.namespace}
        pipeline = server.write(
            "creating the pipeline",
            lambda: server.post("pipelines", Pipeline, body),
            applied=lambda: find_pipeline(server, name),
        )
    id_ = pipeline.pipeline_id
    uploaded = server.read("looking for the version", lambda: find_version(server, id_, version))
    if uploaded is not None:
        return uploaded
    return server.write(
        "uploading the pipeline",
        lambda: server.upload(
            "pipelines/upload_version", PipelineVersion, f"{name}.yaml", text, name=version, pipelineid=id_
        ),
        applied=lambda: find_version(server, id_, version),
    )


def find_experiment(server: Server, name: str) -> Experiment | None:
    """Returns the experiment of this name, or None."""
    found = server.listed("experiments", Experiments, filter=named(name), namespace=server.connection.namespace)
    return next((experiment for experiment in found if experiment.display_name == name), None)


def experiment_of(server: Server, name: str) -> Experiment:
    """Returns the experiment of this name, which is made if there is none."""
    experiment = server.read("looking for the experiment", lambda: find_experiment(server, name))
    if experiment is not None:
        return experiment
    body = {"display_name": name, "namespace": server.connection.namespace}
    return server.write(
        "creating the experiment",
        lambda: server.post("experiments", Experiment, body),
        applied=lambda: find_experiment(server, name),
    )


def submit(
    server: Server, name: str, text: str, experiment: str, parameters: dict[str, Any], options: RunOptions
) -> Submitted:
    """Starts a run.

    Args:
      server: where.
      name: of the pipeline.
      text: of the compiled pipeline.
      experiment: in which the run is listed.
      parameters: of the pipeline; the others have their defaults.
      options: what else it is started with.
    """
    version = upload(server, name, text)
    return start_run(
        server,
        version.pipeline_id,
        version.pipeline_version_id,
        version.display_name,
        experiment_of(server, experiment).experiment_id,
        parameters,
        options,
    )


def start_run(
    server: Server,
    pipeline_id: str,
    version_id: str,
    version: str,
    experiment_id: str,
    parameters: dict[str, Any],
    options: RunOptions,
) -> Submitted:
    """Starts a run of a version, whose name is `version`, that is on the server; arguments as above."""
    # The name is known before the run is: should an answer be lost, the run is found by it.
    run_name = f"{version}-{uuid.uuid4().hex[:8]}"
    body = {
        "display_name": run_name,
        "experiment_id": experiment_id,
        "pipeline_version_reference": {"pipeline_id": pipeline_id, "pipeline_version_id": version_id},
        "runtime_config": {"parameters": parameters, "pipeline_root": options.root},
    } | options.fields()

    def find_run():
        found = server.listed("runs", Runs, experiment_id=experiment_id, filter=named(run_name))
        return next((run for run in found if run.display_name == run_name), None)

    run = server.write("starting the run", lambda: server.post("runs", Run, body), applied=find_run)
    link = f"{server.connection.address}/#/runs/details/{run.run_id}"
    return Submitted(run.run_id, pipeline_id, version_id, version, experiment_id, link)


def watch(
    server: Server,
    run_id: str,
    tasks: Collection[str],
    on_change: Callable[[str, str], None],
    seconds: float = SECONDS_BETWEEN_LOOKS,
) -> tuple[str, str]:
    """Follows a run to its end and returns its state and, if it failed, the tasks that did and why, if that is known.

    Args:
      server: where it runs.
      run_id: of the run.
      tasks: names of the tasks of the pipeline.
      on_change: called with each task and its state, when that goes on.
      seconds: between two looks.
    """
    states: dict[str, str] = {}
    while True:
        run = server.read("looking at the run", lambda: server.get(f"runs/{run_id}", Run, view="FULL"))
        for task, state in states_of(run, tasks).items():
            if _rank(state) > _rank(states.get(task, "")):
                states[task] = state
                on_change(task, state)
        if run.state in FINISHED:
            return run.state, reason_of(run, states)
        time.sleep(seconds)


def states_of(run: Run, tasks: Collection[str]) -> dict[str, str]:
    """Returns the states of the tasks that have begun.

    A backend without MLMD tells of tasks. Others tell of the nodes of their workflow, among which are the workflow
    itself, its root, and many that are called executor; of a task whose driver fails there is no other node.
    """
    states = {task.name: task.state for task in run.tasks or [] if task.name in tasks and task.state}
    if run.tasks:
        return states
    for node in run.nodes:
        name, driver, _ = node.display_name.rpartition("-driver")
        if driver and name in tasks and node.state in FAILURES:
            states.setdefault(name, node.state)
        elif node.display_name in tasks and node.state:
            states[node.display_name] = node.state
    return states


def reason_of(run: Run, states: Mapping[str, str]) -> str:
    """Returns which tasks of a run have failed, each with the reason or with where it stands."""
    messages = {task.name: task.status_metadata.message for task in run.tasks or [] if task.status_metadata}
    failed = [task for task, state in states.items() if state in FAILURES]
    told = []
    for task in [task for task in failed if task != RETRAIN] or failed:  # that one fails with any task in it
        reason = messages.get(task) or "the reason is at the end of its log, the artifact executor-logs"
        told.append(reason if reason.startswith(f"{task}: ") else f"{task}: {reason}")
    return "; ".join(told) or (run.error.message if run.error else "")


def _rank(state: str) -> int:
    """Returns how far on a state is: a task that is retried does not begin again."""
    if state in FINISHED:
        return 3
    return {"": 0, "RUNTIME_STATE_UNSPECIFIED": 0, "RUNNING": 2}.get(state, 1)


def task_names(spec: dict[str, Any]) -> list[str]:
    """Returns the names of the tasks of a pipeline and of the part of it that has a condition."""
    dags = [spec["root"], *(component for component in spec["components"].values() if "dag" in component)]
    return [name for dag in dags for name in dag["dag"]["tasks"]]
