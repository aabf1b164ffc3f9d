"""Schedules on Kubeflow Pipelines: its recurring runs, by their names.

The server takes any number of recurring runs of one name, and changes none. Here a name is one schedule: to change it,
the new one is made before the old ones are deleted.
"""

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.api import (
    Answer,
    CronSchedule,
    PeriodicSchedule,
    PipelineVersion,
    RecurringRun,
    RecurringRuns,
    RecurringRunSpec,
    Run,
    Runs,
    RuntimeConfig,
    Trigger,
    VersionReference,
)
from stillhouse.pipelines.kubeflow.connection import NOT_FOUND, PAGE, AnswerType, ApiError, Server
from stillhouse.pipelines.kubeflow.submit import RunOptions, Submitted, experiment_of, named, start_run, upload
from stillhouse.pipelines.schedules.timing import Timing

ENABLED = "ENABLED"
RUNS_SHOWN = 5
# What Kubeflow's controller reads cron expressions in, unless its CRON_SCHEDULE_TIMEZONE says otherwise.
ZONE = timezone.utc


@dataclass(frozen=True)
class ScheduleSpec:
    """A schedule as it shall be."""

    name: str
    timing: Timing
    text: str  # of the compiled pipeline
    pipeline: str
    experiment: str
    parameters: dict[str, Any]
    options: RunOptions
    catch_up: bool = False
    max_concurrency: int = 1


@dataclass(frozen=True)
class ServerSchedule:
    """A schedule on the server."""

    name: str
    id: str
    timing: Timing
    enabled: bool
    pipeline_id: str
    version_id: str
    version: str | None  # None: it was deleted
    experiment_id: str
    parameters: dict[str, Any]
    options: RunOptions
    catch_up: bool
    max_concurrency: int
    created: datetime | None

    @property
    def next(self) -> datetime | None:
        """When it is due next, if Kubeflow reads its times in ZONE."""
        if not self.enabled or self.version is None:
            return None
        now = datetime.now(timezone.utc)
        return next(self.timing.after(now, self.created or now, ZONE))


def _timing(trigger: Trigger) -> Timing:
    if trigger.cron_schedule:
        return Timing(cron=trigger.cron_schedule.cron)
    assert trigger.periodic_schedule, "the server takes no recurring run without either"
    return Timing(every_seconds=int(trigger.periodic_schedule.interval_second))


def _if_found(server: Server, path: str, answer: type[AnswerType]) -> AnswerType | None:
    try:
        return server.get(path, answer)
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise


def _described(server: Server, recurring: RecurringRun) -> ServerSchedule:
    reference, config = recurring.pipeline_version_reference, recurring.runtime_config
    assert reference, "only those that start versions of pipelines are described"
    path = f"pipelines/{reference.pipeline_id}/versions/{reference.pipeline_version_id}"
    version = server.read("looking for the pipeline", lambda: _if_found(server, path, PipelineVersion))
    return ServerSchedule(
        name=recurring.display_name,
        id=recurring.recurring_run_id,
        timing=_timing(recurring.trigger),
        enabled=recurring.status == ENABLED,
        pipeline_id=reference.pipeline_id,
        version_id=reference.pipeline_version_id,
        version=version.display_name if version else None,
        experiment_id=recurring.experiment_id,
        parameters=dict(config.parameters or {}) if config else {},
        options=RunOptions(
            config.pipeline_root if config else "", recurring.service_account or None, recurring.plugins_input
        ),
        catch_up=not recurring.no_catchup,
        max_concurrency=int(recurring.max_concurrency),
        created=recurring.created_at,
    )


def _recurring(server: Server, name: str | None = None) -> list[RecurringRun]:
    """Returns the recurring runs of a name, or all, oldest first; only those that start versions of pipelines."""
    connection = server.connection
    found = server.listed(
        "recurringruns",
        RecurringRuns,
        connection.timeout,
        namespace=connection.namespace,
        filter=named(name) if name else None,
    )
    return [one for one in found if one.pipeline_version_reference and name in (None, one.display_name)]


def schedules(server: Server) -> list[ServerSchedule]:
    """Returns all schedules that start versions of pipelines."""
    recurring_runs = server.read("looking for schedules", lambda: _recurring(server))
    return [_described(server, recurring) for recurring in recurring_runs]


def find(server: Server, name: str) -> ServerSchedule:
    """Returns the schedule of this name.

    Raises:
      UserError: there is none.
    """
    recurring_runs = server.read("looking for the schedule", lambda: _recurring(server, name))
    if not recurring_runs:
        every_run = server.read("looking for schedules", lambda: _recurring(server))
        names = ", ".join(sorted({recurring.display_name for recurring in every_run})) or "none"
        raise UserError(f"{server.connection.address}: no schedule is named {name!r}; expected one of: {names}")
    return _described(server, recurring_runs[-1])


def create(server: Server, spec: ScheduleSpec) -> tuple[ServerSchedule, Literal["created", "changed", "unchanged"]]:
    """Makes the schedule, or changes the one of its name to it; one that is paused stays paused."""
    version = upload(server, spec.pipeline, spec.text)
    experiment = experiment_of(server, spec.experiment)
    old = server.read("looking for the schedule", lambda: _recurring(server, spec.name))
    paused = bool(old) and old[-1].status != ENABLED
    body = RecurringRunSpec(
        display_name=spec.name,
        experiment_id=experiment.experiment_id,
        namespace=server.connection.namespace,
        pipeline_version_reference=VersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        ),
        runtime_config=RuntimeConfig(parameters=spec.parameters, pipeline_root=spec.options.root),
        trigger=_trigger(spec.timing),
        max_concurrency=str(spec.max_concurrency),
        no_catchup=not spec.catch_up,
        mode="DISABLE" if paused else "ENABLE",
        **spec.options.fields(),
    )
    # The server names its default service account where none was asked for.
    same = [
        recurring
        for recurring in old
        if _settings(recurring) == _settings(body) and body.service_account in (None, recurring.service_account)
    ]
    outcome: Literal["created", "changed", "unchanged"]
    if same:
        current, outcome = same[-1], "unchanged"
    else:
        old_ids = {recurring.recurring_run_id for recurring in old}

        def find_new():
            recurring_runs = _recurring(server, spec.name)
            new = [recurring for recurring in recurring_runs if recurring.recurring_run_id not in old_ids]
            return new[-1] if new else None

        current = server.write(
            "creating the schedule",
            lambda: server.post("recurringruns", RecurringRun, body),
            applied=find_new,
        )
        outcome = "changed" if old else "created"
    for recurring in old:
        if recurring.recurring_run_id != current.recurring_run_id:
            _delete(server, recurring.recurring_run_id)
    return _described(server, current), outcome


def _trigger(timing: Timing) -> Trigger:
    if timing.cron:
        return Trigger(cron_schedule=CronSchedule(cron=timing.cron))
    return Trigger(periodic_schedule=PeriodicSchedule(interval_second=str(timing.every_seconds)))


def _settings(recurring: RecurringRunSpec) -> tuple:
    """Returns what makes a recurring run the same as another."""
    reference, config = recurring.pipeline_version_reference, recurring.runtime_config
    return (
        _timing(recurring.trigger),
        reference,
        recurring.experiment_id,
        (config.parameters or {}, config.pipeline_root) if config else None,
        recurring.max_concurrency,
        recurring.no_catchup,
        recurring.plugins_input,
    )


def _delete(server: Server, id_: str) -> None:
    path = f"recurringruns/{id_}"

    def is_gone():
        return _if_found(server, path, RecurringRun) is None or None

    server.write("deleting the schedule", lambda: server.delete(path), applied=is_gone)


def delete(server: Server, name: str) -> None:
    """Deletes the schedule, its runs stay.

    Raises:
      UserError: there is none.
    """
    find(server, name)
    for recurring in server.read("looking for the schedule", lambda: _recurring(server, name)):
        _delete(server, recurring.recurring_run_id)


def pause(server: Server, name: str) -> None:
    """Lets the schedule start nothing until it is resumed.

    Raises:
      UserError: there is none.
    """
    _switch(server, "pausing the schedule", "disable", find(server, name))


def resume(server: Server, name: str) -> None:
    """Lets a paused schedule start runs again.

    Raises:
      UserError: there is none, or its pipeline was deleted.
    """
    schedule = _with_pipeline(find(server, name))
    _switch(server, "resuming the schedule", "enable", schedule)


def _switch(server: Server, action: str, verb: str, schedule: ServerSchedule) -> None:
    # To do it twice is to do it once.
    server.write(action, lambda: server.post(f"recurringruns/{schedule.id}:{verb}", Answer, {}), applied=lambda: None)


def run_now(server: Server, name: str) -> Submitted:
    """Starts the run of a schedule at once.

    Raises:
      UserError: there is no such schedule, or its pipeline was deleted.
    """
    schedule = _with_pipeline(find(server, name))
    assert schedule.version, "_with_pipeline has looked"
    return start_run(
        server,
        schedule.pipeline_id,
        schedule.version_id,
        schedule.version,
        schedule.experiment_id,
        schedule.parameters,
        schedule.options,
    )


def _with_pipeline(schedule: ServerSchedule) -> ServerSchedule:
    if schedule.version is None:
        raise UserError(
            f"the pipeline of the schedule {schedule.name!r} was deleted from the server; `stillhouse schedule create` "
            "uploads it again, or `stillhouse schedule delete` removes the schedule"
        )
    return schedule


def last_runs(server: Server, schedule: ServerSchedule) -> list[Run]:
    """Returns the newest runs that the schedule has started, newest first, of the last PAGE of its experiment."""
    page = server.read(
        "looking for runs",
        lambda: server.get(
            "runs", Runs, experiment_id=schedule.experiment_id, page_size=PAGE, sort_by="created_at desc"
        ),
    )
    return [run for run in page.items or [] if run.recurring_run_id == schedule.id][:RUNS_SHOWN]
