"""Starts a run on Kubeflow Pipelines, and follows it. What is there already is taken, not made twice."""

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from stillhouse.modules.errors import UserError
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

DIGITS_OF_HASH = 12
EQUALS = 1  # of the API's filters
SECONDS_BETWEEN_LOOKS = 5.0
FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR")


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


def named(name: str) -> str:
    """Returns the filter for things of this name."""
    return json.dumps({"predicates": [{"operation": EQUALS, "key": "display_name", "stringValue": name}]})


def version_name(name: str, text: str) -> str:
    """Returns the name of a pipeline's version: the hash of its content is in it."""
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS_OF_HASH]}"


def check_parameters(arguments: list[str], spec: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of --parameter NAME=VALUE, in the types that the pipeline wants.

    Raises:
      UserError: there is no such parameter, or the value is of another type.
    """
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in parameters:
            raise UserError(f"--parameter {argument}: expected NAME=VALUE with one of: {', '.join(sorted(parameters))}")
        if parameters[name]["parameterType"] == "NUMBER_INTEGER":
            try:
                values[name] = int(value)
            except ValueError as error:
                raise UserError(f"--parameter {argument}: {name} is an integer") from error
        elif parameters[name]["parameterType"] == "BOOLEAN":
            if value not in ("true", "false"):
                raise UserError(f"--parameter {argument}: {name} is true or false")
            values[name] = value == "true"
        else:
            values[name] = value
    return values


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


def submit(server: Server, name: str, text: str, experiment: str, parameters: dict[str, Any], root: str) -> Submitted:
    """Starts a run.

    Args:
      server: where.
      name: of the pipeline.
      text: of the compiled pipeline.
      experiment: in which the run is listed.
      parameters: of the pipeline; the others have their defaults.
      root: where artifacts are kept.
    """
    version = upload(server, name, text)
    return start_run(
        server,
        version.pipeline_id,
        version.pipeline_version_id,
        version.display_name,
        experiment_of(server, experiment).experiment_id,
        parameters,
        root,
    )


def start_run(
    server: Server,
    pipeline_id: str,
    version_id: str,
    version: str,
    experiment_id: str,
    parameters: dict[str, Any],
    root: str,
) -> Submitted:
    """Starts a run of a version, whose name is `version`, that is on the server; arguments as above."""
    # The name is known before the run is: should an answer be lost, the run is found by it.
    run_name = f"{version}-{uuid.uuid4().hex[:8]}"
    body = {
        "display_name": run_name,
        "experiment_id": experiment_id,
        "pipeline_version_reference": {"pipeline_id": pipeline_id, "pipeline_version_id": version_id},
        "runtime_config": {"parameters": parameters, "pipeline_root": root},
    }

    def find_run():
        found = server.listed("runs", Runs, experiment_id=experiment_id, filter=named(run_name))
        return next((run for run in found if run.display_name == run_name), None)

    run = server.write("starting the run", lambda: server.post("runs", Run, body), applied=find_run)
    link = f"{server.connection.address}/#/runs/details/{run.run_id}"
    return Submitted(run.run_id, pipeline_id, version_id, version, experiment_id, link)


def watch(
    server: Server, run_id: str, on_change: Callable[[str, str], None], seconds: float = SECONDS_BETWEEN_LOOKS
) -> tuple[str, str]:
    """Follows a run to its end and returns its state and, if it failed, why.

    Args:
      server: where it runs.
      run_id: of the run.
      on_change: called with each task and its state, when that changes.
      seconds: between two looks.
    """
    states: dict[str, str] = {}
    while True:
        run = server.read("looking at the run", lambda: server.get(f"runs/{run_id}", Run))
        for task in run.tasks:
            if task.state and states.get(task.display_name) != task.state:
                states[task.display_name] = task.state
                on_change(task.display_name, task.state)
        if run.state in FINISHED:
            failed = [task for task in run.tasks if task.state in ("FAILED", "ERROR")]
            message = run.error.message if run.error else ""
            return run.state, message or ", ".join(task.display_name for task in failed)
        time.sleep(seconds)
