"""The commands `stillhouse schedule ...` and `stillhouse scheduler`."""

import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.cli.connection_options import with_connection
from stillhouse.pipelines.cli.console import Console
from stillhouse.pipelines.cli.options import Json, Overrides, Root, SettingsFile, compiled, output
from stillhouse.pipelines.schedules.local_zone import local_zone
from stillhouse.pipelines.schedules.scheduler import Scheduler, in_local_time, next_due
from stillhouse.pipelines.schedules.store import FOLDER, LocalSchedule, Store, lines_for_others, now
from stillhouse.pipelines.schedules.timing import parse_timing, until

SHOWN_RUNS = 10

app = typer.Typer(help="Schedule runs on Kubeflow Pipelines or on this machine.", no_args_is_help=True)

On = Annotated[Literal["kubeflow", "local"], typer.Option(help="Where the schedule is kept and runs.")]
Name = Annotated[str, typer.Argument(help="Name of the schedule.")]
Folder = Annotated[Path, typer.Option(help="Folder of the local schedules.")]
# What only makes sense in one of the two places.
ONLY = {"kubeflow": ("image", "experiment", "parameters", "max_concurrency"), "local": ("root",)}


@app.command()
@with_connection
def create(
    connect: Callable,
    settings_file: SettingsFile,
    cron: Annotated[
        str | None, typer.Option(help="minute hour day-of-month month day-of-week, or six fields with seconds first.")
    ] = None,
    every: Annotated[str | None, typer.Option(help="An interval: 30m, 6h, 1d, 2w.")] = None,
    on: On = "kubeflow",
    name: Annotated[str | None, typer.Option(help="Name of the schedule; default: the pipeline's.")] = None,
    always: Annotated[
        bool, typer.Option("--always", help="Run even if nothing has changed since the last run.")
    ] = False,
    catch_up: Annotated[bool, typer.Option("--catch-up", help="Run all missed times, not only the newest.")] = False,
    overrides: Overrides = None,
    image: Annotated[str | None, typer.Option(help="kubeflow: container image, NAME:TAG.")] = None,
    experiment: Annotated[str | None, typer.Option(help="kubeflow: experiment; default: the pipeline's name.")] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="NAME=VALUE", help="kubeflow: a pipeline's parameter.")
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, max=10, help="kubeflow: runs at the same time; default: 1.")
    ] = None,
    root: Root = None,
    folder: Folder = FOLDER,
    as_json: Json = False,
) -> None:
    """Create or update a schedule; repeating the command changes nothing."""
    timing = parse_timing(cron, every)
    options = {
        "image": image,
        "experiment": experiment,
        "parameters": parameters,
        "root": root,
        "max_concurrency": max_concurrency,
    }
    other = "local" if on == "kubeflow" else "kubeflow"
    for option in ONLY[other]:
        if options[option] is not None:
            shown = option.removesuffix("s") if option == "parameters" else option.replace("_", "-")
            raise UserError(f"--{shown}: only valid with --on {other}")
    settings = load_settings(settings_file, overrides)
    name, console = name or settings.name, Console(stderr=True, soft_wrap=True)
    if on == "local":
        spec = LocalSchedule(
            name=_checked(name),
            settings_file=str(settings_file.absolute()),
            working_directory=os.getcwd(),
            root=str((root or Path("runs") / settings.name).absolute()),
            overrides=overrides or [],
            cron=timing.cron,
            every_seconds=timing.every_seconds,
            catch_up=catch_up,
            only_if_changed=not always,
            created=now(),
        )
        result = _create_local(spec, Store(folder), console)
    else:
        if image is None:
            raise UserError("--image: missing; the containers of the pipeline run it (stillhouse image says how)")
        documents = compiled(settings_file, settings, image, console)
        from stillhouse.pipelines.kubeflow import recurring_runs as kubeflow
        from stillhouse.pipelines.kubeflow.compile import as_yaml
        from stillhouse.pipelines.kubeflow.submit import RunOptions, check_parameters

        values = {"only_if_changed": not always} | check_parameters(parameters or [], documents[0], settings)
        server_spec = kubeflow.ScheduleSpec(
            name=name,
            timing=timing,
            text=as_yaml(documents),
            pipeline=settings.name,
            experiment=experiment or settings.name,
            parameters=values,
            options=RunOptions.of(settings.kubeflow),
            catch_up=catch_up,
            max_concurrency=max_concurrency or 1,
        )
        result = _create_on_kubeflow(server_spec, connect(), console)
    if as_json:
        print(json.dumps(result, indent=1))


def _create_local(spec: LocalSchedule, store: Store, console: Console) -> dict[str, Any]:
    local_zone()  # refuses a mistaken one before anything is written
    outcome = store.create(spec)
    schedule = store.get(spec.name)
    upcoming = next_due(schedule, store.history(spec.name), now())
    console.print(f"schedule {spec.name} {outcome}: {_when(schedule.timing, upcoming)}", highlight=False)
    lines = lines_for_others(schedule, store)
    others = ", or by:" if lines else "; crontab has no seconds"
    console.print(f"it runs while `stillhouse scheduler` does{others}", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)
    return {"name": spec.name, "outcome": outcome, "timing": str(schedule.timing), "next": _iso(upcoming)}


def _create_on_kubeflow(spec: Any, server: Any, console: Console) -> dict[str, Any]:
    from stillhouse.pipelines.kubeflow import recurring_runs as kubeflow

    schedule, outcome = kubeflow.create(server, spec)
    console.print(f"schedule {spec.name} {outcome}: {_when(spec.timing, schedule.next)}", highlight=False)
    if spec.timing.cron:
        console.print(
            f"Kubeflow reads {spec.timing.cron!r} (seconds first) in UTC, unless its administrator has set "
            "CRON_SCHEDULE_TIMEZONE",
            highlight=False,
        )
    return {
        "name": spec.name,
        "outcome": outcome,
        "timing": str(spec.timing),
        "next": _iso(schedule.next),
        "recurring_run_id": schedule.id,
        "version": schedule.version,
    }


def _checked(name: str) -> str:
    """Returns the name of a local schedule, which is a file's too."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"--name {name!r}: letters, digits, hyphens and underscores are allowed")
    return name


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _when(timing: Any, upcoming: datetime | None) -> str:
    if upcoming is None:
        return f"{timing}, paused"
    utc = upcoming.astimezone(timezone.utc)
    local_time = in_local_time(upcoming)
    shown = local_time if local_time.endswith("UTC") else f"{local_time} = {utc:%H:%M} UTC"
    return f"{timing}, next at {shown} ({until(upcoming, now())})"


@app.command("list")
@with_connection
def list_(
    connect: Callable,
    on: Annotated[
        Literal["kubeflow", "local"] | None, typer.Option(help="Only the schedules of one place; default: of both.")
    ] = None,
    folder: Folder = FOLDER,
    as_json: Json = False,
) -> None:
    """List the schedules."""
    console, exit_code = Console(stderr=True, soft_wrap=True), 0
    rows = _local_rows(Store(folder), console) if on != "kubeflow" else []
    if on == "kubeflow":
        rows = _kubeflow_rows(connect())
    elif on is None:
        from stillhouse.pipelines.kubeflow.connection import SHORT_TIMEOUT

        server = connect(attempts=1, timeout=SHORT_TIMEOUT)
        try:
            if server.connection.is_configured:
                rows += _kubeflow_rows(server)
            else:
                console.print("schedules of Kubeflow: not listed; give --host, or run inside the cluster")
        except UserError as error:
            console.print(f"schedules of Kubeflow: not listed: {error}", highlight=False, markup=False)
            exit_code = error.exit_code if server.connection.host else 0
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        table = Table("schedule", "on", "when", "next", "last run, version")
        for row in rows:
            due = in_local_time(datetime.fromisoformat(row["next"])) if row["next"] else row["timing"] and "paused"
            table.add_row(row["name"], row["on"], row["timing"], due, row["state"])
        output().print(table)
    if exit_code:
        raise typer.Exit(exit_code)


def _local_rows(store: Store, console: Console) -> list[dict[str, Any]]:
    """Returns the local schedules; one that is damaged is named, and has neither times nor a last run."""
    rows = []
    for name in store.names():
        try:
            schedule, history = store.get(name), store.history(name)
        except UserError as error:
            console.print(f"{name}: {error}", highlight=False, markup=False)
            rows.append(_row(name, "local", None, None, "corrupt"))
            continue
        last = history[-1].outcome if history else None
        rows.append(_row(name, "local", schedule.timing, next_due(schedule, history, now()), last))
    return rows


def _kubeflow_rows(server: Any) -> list[dict[str, Any]]:
    from stillhouse.pipelines.kubeflow import recurring_runs as kubeflow

    return [
        _row(schedule.name, "kubeflow", schedule.timing, schedule.next, schedule.version or "its pipeline was deleted")
        for schedule in kubeflow.schedules(server)
    ]


def _row(name: str, on: str, timing: Any, upcoming: datetime | None, state: str | None) -> dict[str, Any]:
    return {"name": name, "on": on, "timing": timing and str(timing), "next": _iso(upcoming), "state": state}


@app.command()
@with_connection
def show(connect: Callable, name: Name, on: On = "kubeflow", folder: Folder = FOLDER, as_json: Json = False) -> None:
    """Show a schedule and its last runs."""
    if on == "local":
        store = Store(folder)
        schedule = store.get(name)
        details = schedule.model_dump(mode="json") | {"timing": str(schedule.timing)}
        details["next"] = _iso(next_due(schedule, store.history(name), now()))
        details["log"] = str(store.log(name))
        details["runs"] = [run.model_dump(mode="json") for run in store.history(name)[-SHOWN_RUNS:][::-1]]
    else:
        from stillhouse.pipelines.kubeflow import recurring_runs as kubeflow

        server = connect()
        server_schedule = kubeflow.find(server, name)
        details = {
            "name": server_schedule.name,
            "recurring_run_id": server_schedule.id,
            "timing": str(server_schedule.timing),
            "next": _iso(server_schedule.next),
            "enabled": server_schedule.enabled,
            "version": server_schedule.version or "its pipeline was deleted",
            "parameters": server_schedule.parameters,
            "catch_up": server_schedule.catch_up,
            "max_concurrency": server_schedule.max_concurrency,
            "runs": [
                {"run_id": run.run_id, "state": run.state, "created": _iso(run.created_at)}
                for run in kubeflow.last_runs(server, server_schedule)
            ],
        }
    if as_json:
        print(json.dumps(details, indent=1))
        return
    console = output()
    runs = details.pop("runs")
    for key, value in details.items():
        console.print(f"{key:<18} {value}", highlight=False, markup=False, soft_wrap=True)
    for run in runs:
        console.print(
            "  " + "  ".join(f"{k} {v}" for k, v in run.items()), highlight=False, markup=False, soft_wrap=True
        )


def _change(connect: Callable, name: str, on: str, folder: Path, action: str, outcome: str) -> None:
    if on == "local":
        store = Store(folder)
        if action == "delete":
            store.delete(name)
        else:
            store.enable(name, action == "resume")
    else:
        from stillhouse.pipelines.kubeflow import recurring_runs as kubeflow

        getattr(kubeflow, action)(connect(), name)
    Console(stderr=True).print(f"schedule {name} {outcome}", highlight=False)


@app.command()
@with_connection
def pause(connect: Callable, name: Name, on: On = "kubeflow", folder: Folder = FOLDER) -> None:
    """Pause a schedule."""
    _change(connect, name, on, folder, "pause", "paused")


@app.command()
@with_connection
def resume(connect: Callable, name: Name, on: On = "kubeflow", folder: Folder = FOLDER) -> None:
    """Resume a paused schedule."""
    _change(connect, name, on, folder, "resume", "resumed")


@app.command()
@with_connection
def delete(connect: Callable, name: Name, on: On = "kubeflow", folder: Folder = FOLDER) -> None:
    """Delete a schedule. Its pipeline, its runs and what they pushed stay."""
    _change(connect, name, on, folder, "delete", "deleted")


@app.command("run-now")
@with_connection
def run_now(
    connect: Callable,
    name: Name,
    on: On = "kubeflow",
    folder: Folder = FOLDER,
    due: Annotated[datetime | None, typer.Option(hidden=True, parser=datetime.fromisoformat)] = None,
    missed: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run what a schedule runs, at once. On this machine: to its end, with the exit code of `stillhouse run`."""
    console = Console(stderr=True)
    if on == "kubeflow":
        from stillhouse.pipelines.kubeflow import recurring_runs as kubeflow

        run = kubeflow.run_now(connect(), name)
        console.print(f"run {run.run_id} of {run.version}: {run.link}", highlight=False, soft_wrap=True)
        return
    try:
        execution = Store(folder).execute(
            name, due, missed, on_event=lambda line: console.print(f"{name}: {line}", highlight=False, soft_wrap=True)
        )
    except KeyboardInterrupt as interrupt:
        raise MachineError(f"{name}: interrupted; the next run resumes from here") from interrupt
    console.print(f"{name}: {execution.outcome}", highlight=False)
    if execution.exit_code:
        raise typer.Exit(execution.exit_code)


def scheduler(folder: Folder = FOLDER) -> None:
    """Run the local schedules when they are due, until Ctrl-C."""
    console = Console(stderr=True)

    def print_line(line: str) -> None:
        console.print(
            f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  {line}", highlight=False, markup=False, soft_wrap=True
        )

    Scheduler(Store(folder), print_line).run()
