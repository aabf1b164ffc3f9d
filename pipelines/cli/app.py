"""The command `stillhouse`. Heavy imports stand inside the commands, so that help and mistakes answer at once."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from stillhouse.modules.atomic import write_text
from stillhouse.modules.errors import GATE_REFUSED, MachineError, UserError
from stillhouse.modules.settings import Settings as PipelineSettings
from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.cli import schedule as schedule_cli
from stillhouse.pipelines.cli.compare_runs import compare_runs, print_runs
from stillhouse.pipelines.cli.comparison_table import print_comparison
from stillhouse.pipelines.cli.connection_options import with_connection
from stillhouse.pipelines.cli.dark_knowledge_table import print_dark_knowledge
from stillhouse.pipelines.cli.options import (
    Json,
    Overrides,
    Root,
    SettingsFile,
    compiled,
    make_importable,
    output,
    quieten,
)
from stillhouse.pipelines.local import unchanged
from stillhouse.pipelines.local.run_view import RunView

app = typer.Typer(
    help="Train large teachers, distil them into a small student, prove it on every slice, ship it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

benchmark_app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(schedule_cli.app, name="schedule")
app.command()(schedule_cli.scheduler)


@app.callback()
def _stillhouse() -> None:
    pass


@app.command()
def run(
    settings_file: SettingsFile,
    root: Root = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything that needs no run, and print the DAG.")] = False,
    only_if_changed: Annotated[
        bool,
        typer.Option("--only-if-changed", help="End at once if data, settings and code are those of the last run."),
    ] = False,
    verbose: Annotated[bool, typer.Option(help="Show all of TFX's, Beam's and TensorFlow's logs.")] = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline on this machine. Exit code 0: pushed; 3: a gate refused the student."""
    settings = load_settings(settings_file, overrides)
    make_importable(settings_file)
    root = root or Path("runs") / settings.name
    fingerprint = unchanged.fingerprint_of(settings)
    if only_if_changed and not dry_run and (comparison := unchanged.unchanged_comparison(root, fingerprint)):
        Console(stderr=True).print(f"unchanged since the run {comparison['run_id']}; nothing to do", highlight=False)
        _finish(comparison | {"unchanged": True}, as_json)
        return
    quieten(verbose)
    from stillhouse.pipelines.local import run as local

    if dry_run:
        _dry_run(settings, root, as_json)
        return
    view = RunView(Console(stderr=True), quiet=as_json)
    for name in ("absl", "stillhouse"):
        logging.getLogger(name).addHandler(view)
    try:
        comparison = local.run(settings, root, view)
    except KeyboardInterrupt as interrupt:
        raise MachineError(
            f"interrupted in {view.node}; the same command goes on where this one stopped"
        ) from interrupt
    unchanged.remember(root, fingerprint)
    _finish(comparison, as_json, root / "report.html")


def _finish(comparison: dict[str, Any], as_json: bool, page: Path | None = None) -> None:
    if as_json:
        print(json.dumps(comparison, indent=1))
    else:
        print_comparison(comparison, output())
        if page:
            output().print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    if not comparison["pushed"]:
        raise typer.Exit(GATE_REFUSED)


def _dry_run(settings: PipelineSettings, root: Path, as_json: bool) -> None:
    from stillhouse.pipelines.dag.create import create_pipeline
    from stillhouse.pipelines.local import run as local

    local.check_settings(settings)
    pipeline = create_pipeline(settings, local.local_place(settings, root))
    dag = {node.id: sorted(upstream.id for upstream in node.upstream_nodes) for node in pipeline.components}
    if as_json:
        print(json.dumps({"pipeline": settings.name, "nodes": dag}, indent=1))
        return
    console = Console(soft_wrap=True, highlight=False)
    for name, upstream in dag.items():
        console.print(f"  {name:<22} {'<- ' + ', '.join(upstream) if upstream else ''}".rstrip())
    console.print(f"{len(dag)} nodes; the settings, the data's header and the task module are in order")


@app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="A run's folder, or its name under runs/; default: the last."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Several runs side by side: what changed.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Show report.html in the browser.")] = False,
    dark_knowledge: Annotated[
        bool,
        typer.Option("--dark-knowledge", help="Print what the teachers' soft targets reveal instead."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the comparison of a finished run, its dark knowledge, or how runs differ."""
    runs = runs or []
    if compare:
        if len(runs) < 2:
            raise UserError("--compare: name at least two runs")
        paths = [_comparison_of(run) for run in runs]
        found = compare_runs([str(run) for run in runs], [_read(path) for path in paths])
        print(json.dumps(found, indent=1)) if as_json else print_runs(found, output())
        return
    if len(runs) > 1:
        raise UserError(f"{len(runs)} runs are named; for all of them side by side add --compare")
    path = _comparison_of(runs[0]) if runs else _last_comparison()
    if open_page:
        page = path.with_name("report.html")
        if not page.is_file():
            raise UserError(f"{page}: no such file; the same `stillhouse run` again makes it")
        typer.launch(page.absolute().as_uri())
    show = print_comparison
    if dark_knowledge:
        path, show = path.parent / "dark_knowledge" / "dark_knowledge.json", print_dark_knowledge
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; it is written for the head classification, unless "
                "student.distillation.dark_knowledge is []"
            )
    found = _read(path)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        show(found, output())


def _last_comparison() -> Path:
    found = sorted(Path("runs").glob("*/comparison.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError("there is no finished run under runs/; `stillhouse run SETTINGS` makes one")
    return found[-1]


def _comparison_of(run: Path) -> Path:
    path = (run if run.is_dir() else Path("runs") / run) / "comparison.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; the run has not finished, or this is no run's folder")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); the same `stillhouse run` again makes it anew") from error


@benchmark_app.command("ingestion")
def benchmark_ingestion(
    settings_file: SettingsFile,
    root: Root = None,
    overrides: Overrides = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each way; they take turns.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of a measurement.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Measure the ways to read the train split of a run: examples per second of each cache."""
    settings = load_settings(settings_file, overrides)
    make_importable(settings_file)
    quieten(verbose=False)
    from stillhouse.pipelines.cli.benchmark import measure_ingestion, print_rates

    with Console(stderr=True).status("reading") as status:
        found = measure_ingestion(
            settings,
            root or Path("runs") / settings.name,
            rounds,
            seconds,
            lambda way: status.update(f"reading, {way}"),
        )
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_rates(found, output())


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the new task: lower-case letters, digits and underscores.")],
    recipe: Annotated[
        str | None, typer.Option(help="Settings and data of a published recipe: distilbert, noisy-student or tmkd.")
    ] = None,
) -> None:
    """Write a new task module, settings file and data set that run as they are."""
    from stillhouse.pipelines.cli.init import write_recipe, write_task

    written = write_recipe(recipe, name, Path()) if recipe else write_task(name, Path())
    console = Console()
    for path in written:
        console.print(f"wrote {path}", highlight=False)
    console.print(f"next: stillhouse run {name}.yaml", highlight=False)


@app.command("compile")
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


@app.command()
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

    values = submission.check_parameters(parameters or [], documents[0])
    server = connect()
    root = settings.kubeflow.pipeline_root
    run = submission.submit(server, settings.name, as_yaml(documents), experiment or settings.name, values, root)
    result = run.to_dict()
    console.print(f"run {run.run_id} of {run.version}: {run.link}", highlight=False, soft_wrap=True)
    if watch:

        def told(task: str, state: str) -> None:
            console.print(f"  {task:<30} {state.lower()}", highlight=False)

        state, reason = submission.watch(server, run.run_id, told)
        result["state"] = state
        console.print(f"{state.lower()}{': ' + reason if reason else ''}", highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result, indent=1))
    if watch and state != "SUCCEEDED":
        raise typer.Exit(MachineError.exit_code)


@app.command()
def image(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="NAME:TAG of the image.")],
    tasks: Annotated[Path | None, typer.Option(help="Folder of your task modules, copied into the image.")] = None,
) -> None:
    """Print the commands that build and push the image which the pipeline's containers run."""
    from stillhouse.pipelines.kubeflow.image import build_commands

    for command in build_commands(name, tasks):
        print(command)


@app.command()
def tfjob(
    settings_file: SettingsFile,
    model: Annotated[str, typer.Option(help="Whose training: Teacher-N, Baseline or Student.")],
    image: Annotated[str, typer.Option(help="Container image with stillhouse and the task module.")],
    claim: Annotated[str, typer.Option(help="PersistentVolumeClaim with the pipeline's files.")],
    job_file: Annotated[str, typer.Option(help="Path of the training's job.json in the containers.")],
    mount: Annotated[str, typer.Option(help="Where the claim is mounted.")] = "/pipeline",
    namespace: Annotated[str, typer.Option(help="Namespace of the job.")] = "kubeflow",
    overrides: Overrides = None,
) -> None:
    """Print the Kubeflow Training Operator's manifest (TFJob) for a training of several processes."""
    import yaml

    from stillhouse.pipelines.kubeflow.training_operator import Pods, tfjob

    settings = load_settings(settings_file, overrides)
    print(
        yaml.safe_dump(tfjob(settings, model, Pods(image, namespace, claim, mount, job_file)), sort_keys=False), end=""
    )


def main() -> None:
    """Runs the command line and turns users' mistakes into one message and an exit code."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
