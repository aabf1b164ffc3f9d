"""stillhouse compile, submit, image, tfjob: the pipeline on Kubeflow."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from stillhouse.modules.atomic import write_text
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.cli.connection_options import with_connection
from stillhouse.pipelines.cli.console import Console
from stillhouse.pipelines.cli.options import Json, Overrides, SettingsFile, compiled


def compile_(
    settings_file: SettingsFile,
    output_file: Annotated[Path, typer.Option("--output", help="File to write, .yaml.")],
    image: Annotated[str, typer.Option(help="Container image with stillhouse and the task module: NAME:TAG.")],
    pipeline_root: Annotated[
        str | None, typer.Option(help="Where artifacts are kept, minio://, s3:// or gs://.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write the pipeline for Kubeflow Pipelines: PipelineSpec 2.1.0, with the Kubernetes part where it is needed."""
    root = [f"kubeflow.pipeline_root={json.dumps(pipeline_root)}"] if pipeline_root else []
    settings = load_settings(settings_file, [*(overrides or []), *root])
    console = Console(stderr=True)
    documents = compiled(settings_file, settings, image, console)
    from stillhouse.pipelines.kubeflow.compile import as_yaml

    try:
        write_text(output_file, as_yaml(documents))
    except OSError as error:
        raise UserError(f"--output: cannot write {output_file}: {error.strerror}") from error
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    tasks = len(documents[0]["deploymentSpec"]["executors"])
    console.print(
        f"wrote {output_file}: {tasks} tasks; parameters: {', '.join(parameters)}", highlight=False, soft_wrap=True
    )


@with_connection
def submit(
    connect: Callable,
    settings_file: SettingsFile,
    image: Annotated[str, typer.Option(help="Container image with stillhouse and the task module: NAME:TAG.")],
    experiment: Annotated[str | None, typer.Option(help="Experiment of the run; default: the pipeline's name.")] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="NAME=VALUE", help="A parameter of the pipeline.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")] = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run the pipeline on Kubeflow Pipelines: compile, upload what is new, start, print the run's link."""
    settings = load_settings(settings_file, overrides)
    console = Console(stderr=True)
    documents = compiled(settings_file, settings, image, console)
    from stillhouse.pipelines.kubeflow import submit as submission
    from stillhouse.pipelines.kubeflow.compile import as_yaml

    values = submission.check_parameters(parameters or [], documents[0], settings)
    server = connect()
    options = submission.RunOptions.of(settings.kubeflow)
    run = submission.submit(server, settings.name, as_yaml(documents), experiment or settings.name, values, options)
    result = run.to_dict()
    console.print(f"run {run.run_id} of {run.version}: {run.link}", highlight=False, soft_wrap=True)
    if watch:

        def show_state(task: str, state: str) -> None:
            console.print(f"  {task:<30} {state.lower()}", highlight=False)

        state, reason = submission.watch(server, run.run_id, submission.task_names(documents[0]), show_state)
        result["state"] = state
        console.print(f"{state.lower()}{': ' + reason if reason else ''}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result, indent=1))
    if watch and state != "SUCCEEDED":
        raise typer.Exit(MachineError.exit_code)


def image(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="NAME:TAG of the image.")],
    tasks: Annotated[Path | None, typer.Option(help="Folder of your task modules, copied into the image.")] = None,
) -> None:
    """Print the commands that build and push the image which the pipeline's containers run."""
    from stillhouse.pipelines.kubeflow.image import build_commands

    for command in build_commands(name, tasks):
        print(command)


def tfjob(
    settings_file: SettingsFile,
    model: Annotated[str, typer.Option(help="Model of the training job: Teacher-N, Baseline or Student.")],
    image: Annotated[str, typer.Option(help="Container image with stillhouse and the task module.")],
    claim: Annotated[str, typer.Option(help="PersistentVolumeClaim with the pipeline's files.")],
    job_file: Annotated[str, typer.Option(help="Path of the training's job.json in the containers.")],
    mount: Annotated[str, typer.Option(help="Where the claim is mounted.")] = "/pipeline",
    namespace: Annotated[str, typer.Option(help="Namespace of the job.")] = "kubeflow",
    overrides: Overrides = None,
) -> None:
    """Print the Kubeflow Training Operator's manifest (TFJob) for a training of several processes."""
    import yaml

    from stillhouse.pipelines.kubeflow.image_name import check_image
    from stillhouse.pipelines.kubeflow.training_operator import Pods, tfjob

    check_image(image)
    settings = load_settings(settings_file, overrides)
    print(
        yaml.safe_dump(tfjob(settings, model, Pods(image, namespace, claim, mount, job_file)), sort_keys=False), end=""
    )
