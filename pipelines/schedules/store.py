"""Schedules on this machine: a file each, with the history of their runs beside it.

`execute` runs a schedule once and writes down what came of it; whoever starts it (the scheduler, cron, a person), two
runs of one schedule never overlap, because a run holds the schedule's lock, which the system takes back from a process
that dies. Schedules with the same root (of one settings file, say) wait for each other in the same way.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import filelock
from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from stillhouse.modules.atomic import remove_leftovers, write_text
from stillhouse.modules.errors import GATE_REFUSED, MachineError, UserError
from stillhouse.pipelines.local.unchanged import last_comparison
from stillhouse.pipelines.schedules.timing import Timing, parse_timing

FOLDER = Path("runs/schedules")
KEPT_RUNS = 100  # of the history
# Below a root: what `stillhouse run` holds, and what a schedule's run holds before, while and after it does.
RUN_LOCK = ".lock"
SCHEDULE_LOCK = ".schedule.lock"
SECONDS_BETWEEN_TRIES = 0.5
Outcome = Literal["pushed", "refused", "unchanged", "failed", "interrupted", "running"]


class LocalSchedule(BaseModel):
    """A schedule as its file has it; paths are absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    settings_file: str
    working_directory: str
    root: str
    overrides: list[str] = []
    cron: str | None = None
    every_seconds: int | None = None
    catch_up: bool = False
    only_if_changed: bool = True
    enabled: bool = True
    created: AwareDatetime

    @model_validator(mode="after")
    def _is_due_at_times(self) -> "LocalSchedule":
        try:
            parse_timing(self.cron, None if self.every_seconds is None else f"{self.every_seconds}s")
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def timing(self) -> Timing:
        """When it is due; cron expressions are in this machine's time zone."""
        return Timing(self.cron, self.every_seconds)

    def settings(self) -> dict:
        """Returns what makes it the same as another."""
        return self.model_dump(exclude={"created", "enabled"})


class Execution(BaseModel):
    """One run of a schedule."""

    model_config = ConfigDict(extra="forbid")

    due: AwareDatetime | None  # None: asked for by a person
    started: AwareDatetime
    ended: AwareDatetime | None = None
    outcome: Outcome = "running"
    exit_code: int | None = None
    missed: int = 0  # times before `due` that nothing was run for, counted up to scheduler.MAX_MISSED
    attempt: int = 1


HISTORY = TypeAdapter(list[Execution])


def _corrupt(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: corrupt ({reason}); delete it, and create the schedule")


def now() -> datetime:
    """Returns the time, in whole seconds of UTC."""
    return datetime.now(timezone.utc).replace(microsecond=0)


class Store:
    """The schedules of a folder."""

    def __init__(self, folder: Path = FOLDER):
        """The folder is made when something is written to it."""
        self.folder = folder.absolute()

    def _path(self, name: str, suffix: str = "json") -> Path:
        return self.folder / f"{name}.{suffix}"

    def log(self, name: str) -> Path:
        """Returns the file with the output of the runs that the scheduler starts."""
        return self._path(name, "log")

    def names(self) -> list[str]:
        """Returns the names of the schedules."""
        return sorted(path.stem for path in self.folder.glob("*.json") if not path.stem.endswith(".history"))

    def get(self, name: str) -> LocalSchedule:
        """Returns a schedule.

        Raises:
          UserError: there is none of this name, or its file is damaged or cannot be read.
        """
        path = self._path(name)
        try:
            schedule = LocalSchedule.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            names = ", ".join(self.names()) or "none"
            raise UserError(f"{self.folder}: no schedule is named {name!r}; expected one of: {names}") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise _corrupt(path, error.errors()[0]["msg"]) from error
        if schedule.name != name:
            raise _corrupt(path, f"found the schedule {schedule.name}; expected {name}")
        return schedule

    def create(self, schedule: LocalSchedule) -> Literal["created", "changed", "unchanged"]:
        """Keeps a schedule, in the place of the one of its name; one that is paused stays paused.

        Raises:
          UserError: the folder cannot be written.
        """
        outcome: Literal["created", "changed", "unchanged"] = "created"
        if schedule.name in self.names():
            old = self.get(schedule.name)
            if old.settings() == schedule.settings():
                return "unchanged"
            outcome, schedule = "changed", schedule.model_copy(update={"enabled": old.enabled})
        self._write(schedule)
        return outcome

    def _write(self, schedule: LocalSchedule) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self._path(schedule.name), schedule.model_dump_json(indent=1))
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written: {error.strerror}") from error

    def enable(self, name: str, enabled: bool) -> None:
        """Pauses a schedule, or resumes it: then it counts from now, and nothing is caught up."""
        update = {"enabled": enabled} | ({"created": now()} if enabled else {})
        self._write(self.get(name).model_copy(update=update))

    def delete(self, name: str) -> None:
        """Removes a schedule and its history.

        Raises:
          UserError: there is none of this name.
          MachineError: a run of it is in progress.
        """
        if name not in self.names():
            self.get(name)  # says so; a damaged one is deleted as any other
        with self.lock(name):
            for suffix in ("json", "history.json", "log"):
                remove_leftovers(self._path(name, suffix))
                self._path(name, suffix).unlink(missing_ok=True)
        self._path(name, "lock").unlink(missing_ok=True)

    def history(self, name: str) -> list[Execution]:
        """Returns the runs of a schedule, oldest first. One that says it is running, while nothing does, was killed."""
        path = self._path(name, "history.json")
        try:
            return HISTORY.validate_json(path.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise UserError(f"{path}: corrupt; delete it") from error

    def record(self, name: str, history: list[Execution]) -> None:
        """Writes the runs of a schedule."""
        text = json.dumps([run.model_dump(mode="json") for run in history[-KEPT_RUNS:]], indent=1)
        write_text(self._path(name, "history.json"), text)

    @contextmanager
    def lock(self, name: str):
        """Holds the lock of a schedule's run.

        Raises:
          MachineError: a run of it is in progress.
        """
        lock = filelock.FileLock(self._path(name, "lock"), timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise MachineError(f"{name}: a run of this schedule is in progress") from error
        with lock:
            yield

    def is_running(self, name: str) -> bool:
        """Returns whether a run of the schedule is in progress."""
        try:
            with self.lock(name):
                return False
        except MachineError:
            return True

    def execute(
        self,
        name: str,
        due: datetime | None = None,
        missed: int = 0,
        on_event: Callable[[str], None] = lambda line: None,
    ) -> Execution:
        """Runs a schedule once, to its end; waits while another run uses its root.

        Args:
          name: of the schedule.
          due: the time that it is run for; None: now.
          missed: times that were missed before.
          on_event: called with a line if the run has to wait.

        Raises:
          UserError: there is none of this name, its history is damaged, or its working directory is gone.
          MachineError: a run of it is in progress.
        """
        schedule = self.get(name)
        with self.lock(name), _alone_in(Path(schedule.root), on_event):
            history = self.history(name)
            for earlier in history:
                if earlier.outcome == "running":
                    earlier.outcome = "interrupted"
            attempt = 1 + sum(due is not None and earlier.due == due for earlier in history)
            run = Execution(due=due, started=now(), missed=missed, attempt=attempt)
            history.append(run)
            self.record(name, history)
            try:
                run.exit_code, run.outcome = _run(schedule)
            except KeyboardInterrupt:
                run.outcome = "interrupted"
                raise
            except UserError as error:
                run.outcome, run.exit_code = "failed", error.exit_code
                raise
            finally:
                run.ended = now()
                self.record(name, history)
        return run


@contextmanager
def _alone_in(root: Path, on_event: Callable[[str], None]) -> Iterator[None]:
    """Waits until nothing else runs in a root, and keeps other schedules from it."""
    with ExitStack() as held:
        try:
            root.mkdir(parents=True, exist_ok=True)
            held.enter_context(_waited_for(root / SCHEDULE_LOCK, on_event))
            with _waited_for(root / RUN_LOCK, on_event):
                pass  # the run takes it
        except OSError:
            pass  # the run says what is wrong with the folder
        yield


@contextmanager
def _waited_for(path: Path, on_event: Callable[[str], None]) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        on_event(f"waiting for another run in {path.parent}")
        lock.acquire(timeout=-1, poll_interval=SECONDS_BETWEEN_TRIES)
    try:
        yield
    finally:
        lock.release()


def _run(schedule: LocalSchedule) -> tuple[int, Outcome]:
    overrides = [f"--set={override}" for override in schedule.overrides]
    command = [
        sys.executable,
        "-m",
        "stillhouse",
        "run",
        schedule.settings_file,
        "--root",
        schedule.root,
        *overrides,
    ]
    if schedule.only_if_changed:
        command.append("--only-if-changed")
    before = _finished_run(schedule.root)
    if not os.path.isdir(schedule.working_directory):
        raise UserError(
            f"{schedule.name}: its working directory {schedule.working_directory} is gone; create the schedule again"
        )
    child = subprocess.Popen(command, cwd=schedule.working_directory)
    try:
        child.wait()
    except KeyboardInterrupt:
        # The child has got the same Ctrl-C; it ends by itself, and the run can go on later.
        child.wait()
        raise
    if child.returncode not in (0, GATE_REFUSED):
        return child.returncode, "failed"
    if before is not None and _finished_run(schedule.root) == before:
        return child.returncode, "unchanged"
    return child.returncode, "pushed" if child.returncode == 0 else "refused"


def _finished_run(root: str) -> str | None:
    """Returns the id of the last run that has come to its end."""
    last = last_comparison(Path(root))
    return last["run_id"] if last else None


def lines_for_others(schedule: LocalSchedule, store: Store) -> list[str]:
    """Returns how cron or systemd run the schedule, for those who do without `stillhouse scheduler`."""
    command = [os.path.join(os.path.dirname(sys.executable), "stillhouse"), "schedule", "run-now", schedule.name]
    command += ["--on", "local", "--folder", str(store.folder)]
    directory, quoted = shlex.quote(schedule.working_directory), shlex.join(command)
    lines = []
    fields = schedule.timing.crontab_fields if schedule.cron else None
    if fields:
        # crontab ends the command at a %, unless a backslash is before it, which it removes. The quotes keep it apart
        # from a backslash of the path itself.
        command_line = f"cd {directory} && {quoted}".replace("%", r"'\%'")
        lines.append(f"crontab: {fields} {command_line}")
    if schedule.every_seconds:
        unit = f"--unit=stillhouse-{schedule.name} --working-directory={directory}"
        every = f"--on-active={schedule.every_seconds} --on-unit-active={schedule.every_seconds}"
        lines.append(f"systemd: systemd-run --user {unit} {every} {quoted}")
    return lines


def stop(child: subprocess.Popen, signal_number: int, seconds: float) -> None:
    """Signals the processes of a run that the scheduler has started, and waits for them; kills what does not end."""
    os.killpg(child.pid, signal_number)
    deadline = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if child.poll() is None:
        os.killpg(child.pid, 9)
        child.wait()
