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
class Wanted:
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
class Found:
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
        """When it is due next, if Kubeflow reads its times as UTC."""
        if not self.enabled or self.version is None:
            return None
        now = datetime.now(timezone.utc)
        return next(self.timing.after(now, self.created or now))


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


def _described(server: Server, recurring: V2beta1RecurringRun) -> Found:
    of, config = recurring.pipeline_version_reference, recurring.runtime_config
    version = server.call(
        "looking for the pipeline",
        lambda **_: (_if_found(server.pipelines.get_pipeline_version, of.pipeline_id, of.pipeline_version_id),),
    )[0]
    return Found(
        name=recurring.display_name,
        id=recurring.recurring_run_id,
        timing=_timing(recurring),
        enabled=recurring.status == ENABLED,
        pipeline_id=of.pipeline_id,
        version_id=of.pipeline_version_id,
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
    options = in_namespace(server) | ({"filter": named(name)} if name else {})
    found, token = [], ""
    while True:
        page = server.recurring.list_recurring_runs(page_size=PAGE, page_token=token, **options)
        found += page.recurring_runs or []
        token = page.next_page_token
        if not token:
            break
    return [one for one in found if name in (None, one.display_name)]


def schedules(server: Server) -> list[Found]:
    """Returns all schedules that start versions of pipelines."""
    found = server.call("looking for schedules", lambda **_: _recurring(server))
    return [_described(server, one) for one in found if one.pipeline_version_reference]


def find(server: Server, name: str) -> Found:
    """Returns the schedule of this name.

    Raises:
      UserError: there is none.
    """
    found = server.call("looking for the schedule", lambda **_: _recurring(server, name))
    if not found:
        known = sorted({one.display_name for one in server.call("looking", lambda **_: _recurring(server))})
        raise UserError(
            f"{server.connection.address}: there is no schedule {name!r}; there are: {', '.join(known) or 'none'}"
        )
    return _described(server, found[-1])


def create(server: Server, wanted: Wanted) -> tuple[Found, Literal["created", "changed", "unchanged"]]:
    """Makes the schedule, or changes the one of its name to it; one that is paused stays paused."""
    version = upload(server, wanted.pipeline, wanted.text)
    experiment = experiment_of(server, wanted.experiment)
    old = server.call("looking for the schedule", lambda **_: _recurring(server, wanted.name))
    paused = bool(old) and old[-1].status != ENABLED
    body = V2beta1RecurringRun(
        display_name=wanted.name,
        experiment_id=experiment.experiment_id,
        namespace=server.connection.namespace,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=wanted.parameters, pipeline_root=wanted.root),
        trigger=_trigger(wanted.timing),
        max_concurrency=str(wanted.max_concurrency),
        no_catchup=not wanted.catch_up,
        mode="DISABLE" if paused else "ENABLE",
    )
    same = [one for one in old if _settings(one) == _settings(body)]
    if same:
        kept, outcome = same[-1], "unchanged"
    else:
        known = {one.recurring_run_id for one in old}

        def find_new():
            new = [one for one in _recurring(server, wanted.name) if one.recurring_run_id not in known]
            return new[-1] if new else None

        made = server.recurring.create_recurring_run
        kept = server.call("creating the schedule", made, body, applied=find_new)
        outcome = "changed" if old else "created"
    for one in old:
        if one.recurring_run_id != kept.recurring_run_id:
            _delete(server, one.recurring_run_id)
    return _described(server, kept), outcome


def _trigger(timing: Timing) -> kfp_server_api.V2beta1Trigger:
    if timing.cron:
        return kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=timing.cron))
    periodic = kfp_server_api.V2beta1PeriodicSchedule(interval_second=str(timing.every_seconds))
    return kfp_server_api.V2beta1Trigger(periodic_schedule=periodic)


def _settings(one: V2beta1RecurringRun) -> tuple:
    """Returns what makes a recurring run the same as another."""
    of, config = one.pipeline_version_reference, one.runtime_config
    return (
        _timing(one),
        of and (of.pipeline_id, of.pipeline_version_id),
        one.experiment_id,
        (config.parameters or {}, config.pipeline_root) if config else None,
        str(one.max_concurrency),
        bool(one.no_catchup),
    )


def _delete(server: Server, id_: str) -> None:
    def gone():
        return _if_found(server.recurring.get_recurring_run, id_) is None or None

    server.call("deleting the schedule", server.recurring.delete_recurring_run, id_, applied=gone)


def delete(server: Server, name: str) -> None:
    """Deletes the schedule, its runs stay.

    Raises:
      UserError: there is none.
    """
    find(server, name)
    for one in server.call("looking for the schedule", lambda **_: _recurring(server, name)):
        _delete(server, one.recurring_run_id)


def pause(server: Server, name: str) -> None:
    """Lets the schedule start nothing until it is resumed.

    Raises:
      UserError: there is none.
    """
    server.call("pausing the schedule", server.recurring.disable_recurring_run, find(server, name).id)


def resume(server: Server, name: str) -> None:
    """Lets a paused schedule start runs again.

    Raises:
      UserError: there is none, or its pipeline was deleted.
    """
    found = _with_pipeline(find(server, name))
    server.call("resuming the schedule", server.recurring.enable_recurring_run, found.id)


def run_now(server: Server, name: str) -> Submitted:
    """Starts the run of a schedule at once.

    Raises:
      UserError: there is no such schedule, or its pipeline was deleted.
    """
    found = _with_pipeline(find(server, name))
    return start_run(
        server,
        found.pipeline_id,
        found.version_id,
        found.version,
        found.experiment_id,
        found.parameters,
        found.root,
    )


def _with_pipeline(found: Found) -> Found:
    if found.version is None:
        raise UserError(
            f"the pipeline of the schedule {found.name!r} was deleted from the server; `stillhouse schedule create` "
            "uploads it again, or `stillhouse schedule delete` removes the schedule"
        )
    return found


def last_runs(server: Server, found: Found) -> list[Any]:
    """Returns the newest runs that the schedule has started, newest first."""
    page = server.call(
        "looking for runs",
        server.runs.list_runs,
        experiment_id=found.experiment_id,
        page_size=PAGE,
        sort_by="created_at desc",
    )
    return [run for run in page.runs or [] if run.recurring_run_id == found.id][:RUNS_SHOWN]
