"""Schedules on Kubeflow Pipelines: its recurring runs, by their names.

The server takes any number of recurring runs of one name, and changes none. Here a name is one schedule: to change it,
the new one is made before the old ones are deleted.
"""

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

import kfp_server_api
from kfp_server_api import V2beta1RecurringRun
from kfp_server_api.exceptions import ApiException

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.connection import TIMEOUT, Server
from stillhouse.pipelines.kubeflow.submit import PAGE, Submitted, experiment_of, in_namespace, named, start_run, upload
from stillhouse.pipelines.schedules.timing import Timing

ENABLED = "ENABLED"
NOT_FOUND = 404
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
    root: str
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
    root: str
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


def _timing(recurring: V2beta1RecurringRun) -> Timing:
    trigger = recurring.trigger
    if trigger.cron_schedule:
        return Timing(cron=trigger.cron_schedule.cron)
    return Timing(every_seconds=int(trigger.periodic_schedule.interval_second))


def _if_found(call: Any, *args: Any) -> Any | None:
    try:
        return call(*args, _request_timeout=TIMEOUT)
    except ApiException as error:
        if error.status == NOT_FOUND:
            return None
        raise


def _described(server: Server, recurring: V2beta1RecurringRun) -> ServerSchedule:
    reference, config = recurring.pipeline_version_reference, recurring.runtime_config
    version = server.read(
        "looking for the pipeline",
        lambda: _if_found(server.pipelines.get_pipeline_version, reference.pipeline_id, reference.pipeline_version_id),
    )
    return ServerSchedule(
        name=recurring.display_name,
        id=recurring.recurring_run_id,
        timing=_timing(recurring),
        enabled=recurring.status == ENABLED,
        pipeline_id=reference.pipeline_id,
        version_id=reference.pipeline_version_id,
        version=version.display_name if version else None,
        experiment_id=recurring.experiment_id,
        parameters=dict(config.parameters or {}) if config else {},
        root=config.pipeline_root if config else "",
        catch_up=not recurring.no_catchup,
        max_concurrency=int(recurring.max_concurrency),
        created=recurring.created_at,
    )


def _recurring(server: Server, name: str | None = None) -> list[V2beta1RecurringRun]:
    """Returns the recurring runs of a name, or all, oldest first."""
    options = in_namespace(server) | {"_request_timeout": server.connection.timeout}
    options |= {"filter": named(name)} if name else {}
    recurring_runs: list[V2beta1RecurringRun] = []
    token = ""
    while True:
        page = server.recurring.list_recurring_runs(page_size=PAGE, page_token=token, **options)
        recurring_runs += page.recurring_runs or []
        token = page.next_page_token
        if not token:
            break
    return [recurring for recurring in recurring_runs if name in (None, recurring.display_name)]


def schedules(server: Server) -> list[ServerSchedule]:
    """Returns all schedules that start versions of pipelines."""
    recurring_runs = server.read("looking for schedules", lambda: _recurring(server))
    return [_described(server, recurring) for recurring in recurring_runs if recurring.pipeline_version_reference]


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
    body = V2beta1RecurringRun(
        display_name=spec.name,
        experiment_id=experiment.experiment_id,
        namespace=server.connection.namespace,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=spec.parameters, pipeline_root=spec.root),
        trigger=_trigger(spec.timing),
        max_concurrency=str(spec.max_concurrency),
        no_catchup=not spec.catch_up,
        mode="DISABLE" if paused else "ENABLE",
    )
    same = [recurring for recurring in old if _settings(recurring) == _settings(body)]
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
            lambda: server.recurring.create_recurring_run(body, _request_timeout=TIMEOUT),
            applied=find_new,
        )
        outcome = "changed" if old else "created"
    for recurring in old:
        if recurring.recurring_run_id != current.recurring_run_id:
            _delete(server, recurring.recurring_run_id)
    return _described(server, current), outcome


def _trigger(timing: Timing) -> kfp_server_api.V2beta1Trigger:
    if timing.cron:
        return kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=timing.cron))
    periodic = kfp_server_api.V2beta1PeriodicSchedule(interval_second=str(timing.every_seconds))
    return kfp_server_api.V2beta1Trigger(periodic_schedule=periodic)


def _settings(recurring: V2beta1RecurringRun) -> tuple:
    """Returns what makes a recurring run the same as another."""
    reference, config = recurring.pipeline_version_reference, recurring.runtime_config
    return (
        _timing(recurring),
        reference and (reference.pipeline_id, reference.pipeline_version_id),
        recurring.experiment_id,
        (config.parameters or {}, config.pipeline_root) if config else None,
        str(recurring.max_concurrency),
        bool(recurring.no_catchup),
    )


def _delete(server: Server, id_: str) -> None:
    def is_gone():
        return _if_found(server.recurring.get_recurring_run, id_) is None or None

    server.write(
        "deleting the schedule",
        lambda: server.recurring.delete_recurring_run(id_, _request_timeout=TIMEOUT),
        applied=is_gone,
    )


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
    _switch(server, "pausing the schedule", server.recurring.disable_recurring_run, find(server, name))


def resume(server: Server, name: str) -> None:
    """Lets a paused schedule start runs again.

    Raises:
      UserError: there is none, or its pipeline was deleted.
    """
    schedule = _with_pipeline(find(server, name))
    _switch(server, "resuming the schedule", server.recurring.enable_recurring_run, schedule)


def _switch(server: Server, action: str, call: Any, schedule: ServerSchedule) -> None:
    # To do it twice is to do it once.
    server.write(action, lambda: call(schedule.id, _request_timeout=TIMEOUT), applied=lambda: None)


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
        schedule.root,
    )


def _with_pipeline(schedule: ServerSchedule) -> ServerSchedule:
    if schedule.version is None:
        raise UserError(
            f"the pipeline of the schedule {schedule.name!r} was deleted from the server; `stillhouse schedule create` "
            "uploads it again, or `stillhouse schedule delete` removes the schedule"
        )
    return schedule


def last_runs(server: Server, schedule: ServerSchedule) -> list[Any]:
    """Returns the newest runs that the schedule has started, newest first."""
    page = server.read(
        "looking for runs",
        lambda: server.runs.list_runs(
            experiment_id=schedule.experiment_id,
            page_size=PAGE,
            sort_by="created_at desc",
            _request_timeout=TIMEOUT,
        ),
    )
    return [run for run in page.runs or [] if run.recurring_run_id == schedule.id][:RUNS_SHOWN]
