"""Starts the processes of a cluster on this machine, watches over them, and starts again what dies or hangs.

  multi_worker_mirrored  worker 0 .. n-1; if one dies, all are stopped and the job resumes from its last checkpoint
  stage                  chief, and a process per stage of a network; if one dies, as above
  parameter_server       chief, workers, parameter servers; a worker that dies is replaced while the others continue,
                         a chief or a parameter server is as above

A process without a heartbeat (`stillhouse.modules.cluster.heartbeat`) for a while is killed, and counts as dead.

The standard input of every process is a pipe that nobody writes to. It closes when the supervisor is gone, however
that came about, and then they end themselves.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from stillhouse.modules import progress
from stillhouse.modules.cluster import heartbeat
from stillhouse.modules.cluster.spec import STAGES, TF_CONFIG
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.peak_memory import peak_mb

HOST = "127.0.0.1"
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_START = 60.0  # at least, for a process's first sign of life: a busy machine starts Python slowly
SECONDS_TO_END = 20.0  # for the workers, when the chief is done
# What a process says that failed because another one did. The other one may need a while to say why.
SECONDS_TO_TELL = 5.0
CASCADE = ("UnavailableError", "AbortedError", "CancelledError", "InternalError")


@dataclass(frozen=True)
class Job:
    """What a cluster does."""

    name: str  # the model's name in messages
    kind: str  # TrainingConfig.cluster_kind
    workers: int  # or stages of all replicas
    parameter_servers: int
    most_restarts: int
    back_off_seconds: float  # before the first restart; doubled for each that follows
    heartbeat_seconds: float  # without a sign of life, after which a process is killed
    folder: Path  # of the tasks' logs
    module: str  # import path of what each process runs, as `python -m MODULE JOB.json FAILURE.json`
    run: dict[str, Any]  # JOB.json

    @property
    def tasks(self) -> list[tuple[str, int]]:
        """Type and index of every process, the one that writes the model first."""
        if self.kind == STAGES:
            return [("chief", 0), *((STAGES, index) for index in range(self.workers))]
        if self.kind == "multi_worker_mirrored":
            return [("worker", index) for index in range(self.workers)]
        servers = [("ps", index) for index in range(self.parameter_servers)]
        return [("chief", 0), *(("worker", index) for index in range(self.workers)), *servers]


@dataclass
class _Task:
    kind: str
    index: int
    environment: dict[str, str]
    log: Path
    failure: Path  # where it writes why it failed
    # None until it is started; what runs in between looks at started tasks only.
    process: subprocess.Popen = None  # type: ignore[assignment]
    reader: threading.Thread = None  # type: ignore[assignment]
    silence: heartbeat.Silence = field(default_factory=heartbeat.Silence)
    killed_because: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.index}"


@dataclass
class _TaskError(Exception):
    task: str
    reason: str
    of_user: bool = False
    log: Path | None = None


@dataclass
class Course:
    """How a job went."""

    restarts: int = 0  # of it, or of a worker
    first: _TaskError | None = field(default=None, repr=False)
    peaks_mb: dict[str, float] = field(default_factory=dict)  # peak resident set of each process, the last of its name


def run_job(job: Job) -> Course:
    """Runs the job to its end and returns how it went.

    Raises:
      UserError: what a task says is the user's to mend, at once; a job that failed more than `most_restarts` times,
        with the first error.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    course = Course()
    while True:
        try:
            with _started(job) as tasks:
                _watch(job, tasks, course)
                return course
        except _TaskError as failure:
            _note(job, course, failure, "restarting from the last checkpoint")
            time.sleep(job.back_off_seconds * 2 ** (course.restarts - 1))


def _note(job: Job, course: Course, failure: _TaskError, what_next: str) -> None:
    """Counts a restart, or raises if there may be none."""
    if failure.of_user:
        raise UserError(failure.reason) from None
    course.first = course.first or failure
    if course.restarts >= job.most_restarts:
        first = course.first
        raise MachineError(
            f"{job.name}: failed {course.restarts + 1} times; restarts.most is {job.most_restarts}; first error, of "
            f"{first.task}: {first.reason} (output: {first.log})"
        ) from None
    course.restarts += 1
    progress.note(f"{job.name}: {failure.task}: {failure.reason}; {what_next} (restart {course.restarts})")


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for listener in sockets:
            listener.bind((HOST, 0))
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()


def gpus_of(index: int, workers: int, gpus: int) -> str:
    """Returns CUDA_VISIBLE_DEVICES of a worker: its equal part of the machine's GPUs."""
    each = gpus // workers
    return ",".join(str(number) for number in range(index * each, (index + 1) * each))


@contextmanager
def _started(job: Job) -> Iterator[list[_Task]]:
    """Starts every task; ends them all on the way out."""
    addresses: dict[str, list[str]] = {}
    for (kind, _), port in zip(job.tasks, free_ports(len(job.tasks)), strict=True):
        addresses.setdefault(kind, []).append(f"{HOST}:{port}")
    run_file = job.folder / "job.json"
    run_file.write_text(json.dumps(job.run))
    gpus = len(tf.config.list_physical_devices("GPU"))
    tasks = []
    try:
        for kind, index in job.tasks:
            environment = os.environ | {
                TF_CONFIG: json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}}),
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            }
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = (
                    gpus_of(index, job.workers, gpus) if kind in ("worker", STAGES) else ""
                )
            name = f"{kind}-{index}"
            task = _Task(kind, index, environment, job.folder / f"{name}.log", job.folder / f"{name}.failure.json")
            tasks.append(task)
            _start(task, job.module, run_file, speaks=task is tasks[0])
        yield tasks
    finally:
        for task in tasks:
            _end(task)


def _start(task: _Task, module: str, run_file: Path, speaks: bool) -> None:
    task.failure.unlink(missing_ok=True)
    task.silence, task.killed_because = heartbeat.Silence(), ""
    task.process = subprocess.Popen(
        [sys.executable, "-m", module, str(run_file), str(task.failure)],
        env=task.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A Ctrl-C is for the supervisor, which ends the others.
        start_new_session=True,
    )
    task.reader = threading.Thread(target=_read, args=(task, task.process.stdout, task.silence, speaks), daemon=True)
    task.reader.start()


def _read(task: _Task, output, silence: heartbeat.Silence, speaks: bool) -> None:
    """Copies a task's output into its log, and its progress, if it speaks for all, to ours."""
    with task.log.open("a") as log:
        for line in output:
            silence.end()
            if line == heartbeat.LINE:
                continue
            if line.startswith(progress.LINE):
                if speaks:
                    progress.repeat(json.loads(line[len(progress.LINE) :]))
                continue
            log.write(line)
            log.flush()
            progress.LOGGER.debug("[%s] %s", task.name, line.rstrip())


def _end(task: _Task) -> None:
    if task.process is None:
        return
    if task.process.poll() is None:
        task.process.kill()
    task.process.wait()
    if task.process.stdin:
        task.process.stdin.close()
    task.reader.join()
    if task.process.stdout:
        task.process.stdout.close()


def _watch(job: Job, tasks: list[_Task], course: Course) -> None:
    """Returns when the job is done; raises _TaskError if it has to be started again."""
    while True:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        peaks = {task.name: peak_mb(task.process.pid) for task in tasks}
        course.peaks_mb |= {name: peak for name, peak in peaks.items() if peak is not None}
        _kill_silent(tasks, job.heartbeat_seconds)
        chief = tasks[0]
        if chief.process.poll() == 0:  # the model is written
            if job.kind == "multi_worker_mirrored":  # the others only serve
                _let_end(tasks[1:])
            return
        failed = _failed(tasks)
        if failed:
            failure = _first(failed)
            deadline = time.monotonic() + SECONDS_TO_TELL
            while failure.reason.startswith(CASCADE) and time.monotonic() < deadline:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                failed = _failed(tasks)
                failure = _first(failed)
            lone = all(task.kind == "worker" for task in failed) and job.kind == "parameter_server"
            if not lone or failure.of_user:
                raise failure
            for task in failed:
                _end(task)
                _note(job, course, failure, "replacing it while the others continue")
                _start(task, job.module, job.folder / "job.json", speaks=False)


def _kill_silent(tasks: list[_Task], seconds: float) -> None:
    """Kills tasks that have given no sign of life for so many seconds."""
    for task in tasks:
        allowed = max(seconds, SECONDS_TO_START) if task.silence.is_first else seconds
        if task.silence.look() > allowed and task.process.poll() is None:
            task.killed_because = f"no heartbeat for {allowed:g} s"
            task.process.kill()  # SIGKILL ends a stopped process, too
            task.process.wait()


def _failed(tasks: list[_Task]) -> list[_Task]:
    return [task for task in tasks if task.process.poll()]


def _let_end(tasks: list[_Task]) -> None:
    """Waits for the workers whose chief is done."""
    deadline = time.monotonic() + SECONDS_TO_END
    for task in tasks:
        try:
            task.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            progress.LOGGER.debug("%s did not end by itself", task.name)


def _first(failed: list[_Task]) -> _TaskError:
    """Returns the failure that is not the consequence of another one."""
    failures = [_failure_of(task) for task in failed]
    return min(failures, key=lambda failure: (not failure.of_user, failure.reason.startswith(CASCADE)))


def _failure_of(task: _Task) -> _TaskError:
    if task.killed_because:
        return _TaskError(task.name, task.killed_because, log=task.log)
    if task.process.returncode < 0:
        return _TaskError(task.name, f"ended by {signal.Signals(-task.process.returncode).name}", log=task.log)
    try:
        failure = json.loads(task.failure.read_text())
    except (FileNotFoundError, ValueError):
        return _TaskError(task.name, f"ended with exit code {task.process.returncode}", log=task.log)
    # What the machine does not let us do, it may let us do the next time.
    of_user = failure["of_user"] and task.process.returncode == UserError.exit_code
    return _TaskError(task.name, failure["reason"], of_user, task.log)
