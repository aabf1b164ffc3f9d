"""Starts a run on Kubeflow Pipelines, and follows it. What is there already is taken, not made twice."""

import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import kfp_server_api

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.connection import TIMEOUT, Server

DIGITS_OF_HASH = 12
EQUALS = 1  # of the API's filters
PAGE = 100
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


def in_namespace(server: Server) -> dict[str, Any]:
    """Returns the options of a listing."""
    namespace = server.connection.namespace
    return {"_request_timeout": TIMEOUT} | ({"namespace": namespace} if namespace else {})


def find_pipeline(server: Server, name: str) -> Any | None:
    """Returns the pipeline of this name, or None."""
    options = in_namespace(server)
    pipelines = server.pipelines.list_pipelines(filter=named(name), page_size=PAGE, **options).pipelines
    return next((pipeline for pipeline in pipelines or [] if pipeline.display_name == name), None)


def find_version(server: Server, pipeline_id: str, name: str) -> Any | None:
    """Returns the version of this name, or None."""
    token = ""
    while True:
        page = server.pipelines.list_pipeline_versions(
            pipeline_id, page_size=PAGE, page_token=token, _request_timeout=TIMEOUT
        )
        for version in page.pipeline_versions or []:
            if version.display_name == name:
                return version
        token = page.next_page_token
        if not token:
            return None


def upload(server: Server, name: str, text: str) -> Any:
    """Returns the pipeline's version with this content, which is uploaded if the server has not got it."""
    version = version_name(name, text)
    pipeline = server.read("looking for the pipeline", lambda: find_pipeline(server, name))
    if pipeline is None:
        body = kfp_server_api.V2beta1Pipeline(display_name=name, namespace=server.connection.namespace)
        pipeline = server.write(
            "creating the pipeline",
            lambda: server.pipelines.create_pipeline(body, _request_timeout=TIMEOUT),
            applied=lambda: find_pipeline(server, name),
        )
    id_ = pipeline.pipeline_id
    uploaded = server.read("looking for the version", lambda: find_version(server, id_, version))
    if uploaded is not None:
        return uploaded
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{name}.yaml")
        file.write_text(text, encoding="utf-8")
        return server.write(
            "uploading the pipeline",
            lambda: server.uploads.upload_pipeline_version(
                str(file), name=version, pipelineid=id_, _request_timeout=TIMEOUT
            ),
            applied=lambda: find_version(server, id_, version),
        )


def find_experiment(server: Server, name: str) -> Any | None:
    """Returns the experiment of this name, or None."""
    options = in_namespace(server)
    experiments = server.experiments.list_experiments(filter=named(name), page_size=PAGE, **options).experiments
    return next((experiment for experiment in experiments or [] if experiment.display_name == name), None)


def experiment_of(server: Server, name: str) -> Any:
    """Returns the experiment of this name, which is made if there is none."""
    experiment = server.read("looking for the experiment", lambda: find_experiment(server, name))
    if experiment is not None:
        return experiment
    body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=server.connection.namespace)
    return server.write(
        "creating the experiment",
        lambda: server.experiments.create_experiment(body, _request_timeout=TIMEOUT),
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
    body = kfp_server_api.V2beta1Run(
        display_name=run_name,
        experiment_id=experiment_id,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=pipeline_id, pipeline_version_id=version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=parameters, pipeline_root=root),
    )

    def find_run():
        runs = server.runs.list_runs(
            experiment_id=experiment_id, filter=named(run_name), page_size=PAGE, _request_timeout=TIMEOUT
        ).runs
        return next((run for run in runs or [] if run.display_name == run_name), None)

    run = server.write(
        "starting the run", lambda: server.runs.create_run(body, _request_timeout=TIMEOUT), applied=find_run
    )
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
        run = server.read("looking at the run", lambda: server.runs.get_run(run_id, _request_timeout=TIMEOUT))
        tasks = (run.run_details.task_details if run.run_details else None) or []
        for task in tasks:
            if task.state and states.get(task.display_name) != task.state:
                states[task.display_name] = task.state
                on_change(task.display_name, task.state)
        if run.state in FINISHED:
            failed = [task for task in tasks if task.state in ("FAILED", "ERROR")]
            message = run.error.message if run.error else ""
            return run.state, message or ", ".join(task.display_name for task in failed)
        time.sleep(seconds)
