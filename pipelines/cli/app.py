"""The command `stillhouse`. Heavy imports stand inside the commands, so that help and errors are quick."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

import stillhouse
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.cli import kubeflow, schedule
from stillhouse.pipelines.cli.console import Console
from stillhouse.pipelines.cli.options import Json, Overrides, Root, SettingsFile, make_importable, output, quieten
from stillhouse.pipelines.cli.pushed import pushed, rollback
from stillhouse.pipelines.cli.report import report
from stillhouse.pipelines.cli.run import run

app = typer.Typer(
    help="Train large teachers, distil them into a small student, push it only if it is good enough.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

benchmark_app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")
app.command()(run)
app.command()(report)
app.command()(pushed)
app.command()(rollback)
app.command("compile")(kubeflow.compile_)
app.command()(kubeflow.submit)
app.command()(kubeflow.image)
app.command()(kubeflow.tfjob)
app.add_typer(schedule.app, name="schedule")
app.command()(schedule.scheduler)


def _show_version(requested: bool) -> None:
    if requested:
        print(stillhouse.__version__)
        raise typer.Exit


@app.callback()
def _stillhouse(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@benchmark_app.command("ingestion")
def benchmark_ingestion(
    settings_file: SettingsFile,
    root: Root = None,
    overrides: Overrides = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each method, interleaved.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of a measurement.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Measure how fast each cache reads the train split of a run, in examples per second."""
    settings = load_settings(settings_file, overrides)
    make_importable(settings_file)
    quieten(verbose=False)
    from stillhouse.pipelines.cli.benchmark import measure_ingestion, print_rates

    with Console(stderr=True).status("reading") as status:
        rates = measure_ingestion(
            settings,
            root or Path("runs") / settings.name,
            rounds,
            seconds,
            lambda way: status.update(f"reading, {way}"),
        )
    if as_json:
        print(json.dumps(rates, indent=1))
    else:
        print_rates(rates, output())


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the new task: lower-case letters, digits and underscores.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="Settings and data of a recipe: distilbert, noisy-student, pretrained-teacher or tmkd."),
    ] = None,
) -> None:
    """Write a new task module, settings file and data set that run as they are."""
    from stillhouse.pipelines.cli.init import write_recipe, write_task

    written = write_recipe(recipe, name, Path()) if recipe else write_task(name, Path())
    console = Console()
    for path in written:
        console.print(f"wrote {path}", highlight=False)
    console.print(f"next: stillhouse run {name}.yaml", highlight=False)


def _give_home() -> None:
    """Sets HOME where neither it nor the user id names a home, as in a container: nltk needs one to be imported."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/"  # as container engines do


def main() -> None:
    """Runs the command line and turns users' mistakes into one message and an exit code."""
    _give_home()
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
