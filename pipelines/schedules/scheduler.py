"""The process that runs local schedules when they are due, by Kubeflow's rules.

Missed times: of those that have passed while nothing could run, only the newest is run, or with catch_up all of them,
one after the other. Overlap: a schedule has one run at a time; what becomes due meanwhile has been missed. A run that
was killed is started again, where it stopped, up to MAX_ATTEMPTS times.

Clocks are set back, too. A run of the past counts as done, and each time is run once, also if it comes again; a run of
the future (the clock was ahead) counts for nothing until its time comes.
"""

import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice, takewhile
from pathlib import Path

import filelock

from stillhouse.modules.atomic import refuse_links
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.pipelines.schedules.local_zone import local_zone
from stillhouse.pipelines.schedules.store import Execution, LocalSchedule, Store, stop
from stillhouse.pipelines.schedules.timing import until

MAX_ATTEMPTS = 3
MAX_MISSED = 1000  # that are counted
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_STOP = 60.0


@dataclass(frozen=True)
class Due:
    """A run that has to be started."""

    due: datetime
    missed: int = 0  # times before it; MAX_MISSED: or more


def due_now(schedule: LocalSchedule, history: list[Execution], now: datetime) -> Due | None:
    """Returns the run of a schedule that has to be started now, if there is one.

    Args:
      schedule: the schedule.
      history: its runs, oldest first; none of them is going on.
      now: with a time zone.
    """
    if not schedule.enabled or schedule.created > now:
        return None
    passed = {run.due: run for run in history if run.due is not None and schedule.created < run.due <= now}
    since = max(passed, default=schedule.created)
    if passed and _is_to_be_resumed(passed[since]):
        return Due(since, passed[since].missed)
    zone = local_zone()
    latest = schedule.timing.latest(now, schedule.created, zone)
    if latest is None or latest <= since:
        return None
    times = schedule.timing.after(since, schedule.created, zone)
    if schedule.catch_up:
        return Due(next(times))
    missed = takewhile(lambda moment: moment < latest, times)
    return Due(latest, missed=len(list(islice(missed, MAX_MISSED))))


def next_due(schedule: LocalSchedule, history: list[Execution], now: datetime) -> datetime | None:
    """Returns the first time after `now` that the schedule will be run for; None: it is paused."""
    if not schedule.enabled:
        return None
    # After the clock was set back, times come again for which there was a run.
    done = {run.due for run in history if not _is_to_be_resumed(run)}
    times = schedule.timing.after(now, min(schedule.created, now), local_zone())
    return next(moment for moment in times if moment not in done)


def _is_to_be_resumed(run: Execution) -> bool:
    return run.outcome in ("running", "interrupted") and run.attempt < MAX_ATTEMPTS


class Scheduler:
    """Looks at the schedules of a folder, again and again, and starts what is due."""

    def __init__(self, store: Store, on_event: Callable[[str], None]):
        """`on_event` is called with a line for everything that happens."""
        self._store = store
        self._on_event = on_event
        self._running: dict[str, subprocess.Popen] = {}
        self._started: dict[str, Due] = {}
        self._given_up: dict[str, Due] = {}
        self._announced: dict[str, datetime | None] = {}
        self._faults: dict[str, str] = {}
        self._clock_notes: set[str] = set()

    def run(self) -> None:
        """Runs until the process gets SIGINT or SIGTERM; what is running then is interrupted.

        Raises:
          MachineError: another scheduler works on the folder.
          UserError: the folder cannot be written, or this machine's time zone does not exist.
        """
        local_zone()

        def stopped(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, stopped)
        signal.signal(signal.SIGINT, stopped)
        try:
            self._store.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self._store.folder / ".scheduler.lock", timeout=0)
            lock.acquire()
        except filelock.Timeout as error:
            raise MachineError(f"{self._store.folder}: another scheduler works on these schedules") from error
        except OSError as error:
            raise UserError(f"{self._store.folder}: cannot be written: {error.strerror}") from error
        with lock:
            if not self._store.names():
                self._on_event(f"no schedules in {self._store.folder} yet")
            try:
                while True:
                    self.look()
                    time.sleep(SECONDS_BETWEEN_LOOKS)
            except KeyboardInterrupt:
                for name, child in self._running.items():
                    self._on_event(f"{name}: interrupted; the next scheduler resumes it")
                    stop(child, signal.SIGINT, SECONDS_TO_STOP)

    def look(self) -> None:
        """Starts what is due, and tells what has ended."""
        for name in self._store.names():
            try:
                self._look_at(name)
                self._faults.pop(name, None)
            except Exception as error:  # what goes wrong with a schedule does not stop the others
                fault = str(error) if isinstance(error, UserError | OSError) else traceback.format_exc()
                if self._faults.get(name) != fault:
                    self._faults[name] = fault
                    self._on_event(f"{name}: {fault}")

    def _look_at(self, name: str) -> None:
        child = self._running.get(name)
        if child is not None:
            if child.poll() is None:
                return
            del self._running[name]
            self._tell_end(name)
        schedule, now = self._store.get(name), datetime.now(timezone.utc)
        if self._store.is_running(name):  # by hand, or by a scheduler that was killed
            return
        history = self._store.history(name)
        schedule = self._in_time(schedule, history, now)
        due = due_now(schedule, history, now)
        if due and due != self._given_up.get(name):
            self._start(name, due)
            return
        upcoming = next_due(schedule, history, now)
        if self._announced.get(name, now) != upcoming:
            self._announced[name] = upcoming
            when = f"next at {in_local_time(upcoming)} ({until(upcoming, now)})" if upcoming else "paused"
            self._on_event(f"{name}: {when}")

    def _in_time(self, schedule: LocalSchedule, history: list[Execution], now: datetime) -> LocalSchedule:
        """Says what has a time in the future, as the clock was ahead; a schedule from there counts from now."""
        ahead = [run.due for run in history if run.due is not None and run.due > now]
        if ahead:
            note = f"{schedule.name}: a run of {in_local_time(max(ahead))}, in the future, does not count"
            if note not in self._clock_notes:
                self._clock_notes.add(note)
                self._on_event(f"{note} (was the clock ahead?)")
        if schedule.enabled and schedule.created > now:
            created = in_local_time(schedule.created)
            self._on_event(f"{schedule.name}: created {created}, in the future (was the clock ahead?); counts from now")
            self._store.enable(schedule.name, True)
            return self._store.get(schedule.name)
        return schedule

    def _start(self, name: str, due: Due) -> None:
        log, self._started[name] = self._store.log(name), due
        refuse_links(log, below=self._store.folder)
        count = f"{due.missed} or more" if due.missed == MAX_MISSED else due.missed
        missed = f"; skipped {count} missed" if due.missed else ""
        self._on_event(f"{name}: started the run due {in_local_time(due.due)}{missed}; output in {_shown(log)}")
        command = [sys.executable, "-m", "stillhouse", "schedule", "run-now", name, "--on", "local"]
        command += ["--folder", str(self._store.folder), "--due", due.due.isoformat(), "--missed", str(due.missed)]
        with open(log, "a", encoding="utf-8") as output:
            # A session of its own, so that it outlives a scheduler that is killed.
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _tell_end(self, name: str) -> None:
        history = self._store.history(name)
        if not history or history[-1].due != self._started[name].due:
            self._given_up[name] = self._started[name]
            self._on_event(f"{name}: could not be started; see {_shown(self._store.log(name))}")
            return
        run = history[-1]
        took = f" after {(run.ended - run.started).total_seconds():.0f} s" if run.ended else ""
        hint = f"; see {_shown(self._store.log(name))}" if run.outcome in ("failed", "running") else ""
        self._on_event(f"{name}: {'killed' if run.outcome == 'running' else run.outcome}{took}{hint}")


def in_local_time(moment: datetime) -> str:
    """Returns a time in this machine's time zone, which is named."""
    return moment.astimezone(local_zone()).strftime("%Y-%m-%d %H:%M %Z")


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
