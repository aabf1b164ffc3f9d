"""The watch over a cluster's processes, with real small ones: stopped, busy, or watched by a supervisor that sleeps."""

import logging
import sys
import time

import pytest

from stillhouse.modules import progress
from stillhouse.modules.cluster import heartbeat
from stillhouse.modules.cluster.supervisor import Job, run_job
from stillhouse.modules.errors import MachineError

SECONDS = 5.0  # without a heartbeat

# The first attempt of the task that is named in the job file does something; everything else ends well.
MEMBER = """
import json, os, signal, sys, time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text())
task = json.loads(os.environ["TF_CONFIG"])["task"]
name = f"{task['type']} {task['index']}"
first = Path(sys.argv[1]).with_name(f"{name}.started")
if job["heartbeat"]:
    from stillhouse.modules.cluster.heartbeat import start_heartbeat
    start_heartbeat()
else:
    print("started", flush=True)
if name == job["task"] and not first.exists():
    first.touch()
    exec(job["does"])
while name != job["task"] and not Path(sys.argv[1]).with_name("done").exists():
    time.sleep(0.1)
Path(sys.argv[1]).with_name("done").touch()
"""
STOPS = "os.kill(os.getpid(), signal.SIGSTOP)"
IS_BUSY = f"""
end = time.monotonic() + {SECONDS + 3}
while time.monotonic() < end:
    sum(range(1000))
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    (tmp_path / "small_member.py").write_text(MEMBER)
    monkeypatch.syspath_prepend(tmp_path)

    def make(kind, task, does, most_restarts=1, has_heartbeat=True):
        return Job(
            name="Student",
            kind=kind,
            workers=2,
            parameter_servers=1,
            most_restarts=most_restarts,
            back_off_seconds=0.0,
            heartbeat_seconds=SECONDS,
            folder=tmp_path / "cluster",
            module="small_member",
            run={"task": task, "does": does, "heartbeat": has_heartbeat},
        )

    return make


@pytest.fixture
def notes(caplog):
    caplog.set_level(logging.INFO, logger=progress.LOGGER.name)
    propagates, progress.LOGGER.propagate = progress.LOGGER.propagate, True
    yield caplog
    progress.LOGGER.propagate = propagates


@pytest.mark.parametrize(
    ("kind", "task", "what_next"),
    [
        ("multi_worker_mirrored", "worker 1", "restarting from the last checkpoint"),
        ("parameter_server", "worker 0", "replacing it while the others continue"),
        ("parameter_server", "ps 0", "restarting from the last checkpoint"),
        ("stage", "stage 1", "restarting from the last checkpoint"),
    ],
)
def test_a_process_that_is_stopped_is_killed_and_started_again(job, notes, kind, task, what_next):
    began = time.monotonic()
    course = run_job(job(kind, task, STOPS))
    assert course.restarts == 1
    assert f"Student: {task}: no heartbeat for 5 s; {what_next} (restart 1)" in notes.messages
    assert time.monotonic() - began > SECONDS


def test_a_process_that_is_stopped_again_and_again_ends_the_job(job):
    with pytest.raises(MachineError, match=r"failed 1 times; .* first error, of worker 1: no heartbeat for 5 s"):
        run_job(job("multi_worker_mirrored", "worker 1", STOPS, most_restarts=0))


def test_a_main_thread_that_is_busy_is_none_that_hangs(job):
    assert run_job(job("multi_worker_mirrored", "worker 0", IS_BUSY, most_restarts=0)).restarts == 0


def test_without_the_thread_a_busy_process_counts_as_hanging(job):
    """That the test above sees what it says."""
    with pytest.raises(MachineError, match="no heartbeat for 5 s"):
        run_job(job("multi_worker_mirrored", "worker 0", IS_BUSY, most_restarts=0, has_heartbeat=False))


def test_time_in_which_the_supervisor_stood_still_does_not_count(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock[0])
    silence = heartbeat.Silence()
    clock[0] += 3600
    assert silence.look() == heartbeat.SECONDS_BETWEEN_BEATS
    for _ in range(30):
        clock[0] += 0.1
        silence.look()
    assert silence.seconds == pytest.approx(4)
    silence.end()
    clock[0] += 0.1
    assert silence.look() == pytest.approx(0.1)


def test_the_heartbeat_is_not_in_the_log(job, tmp_path):
    run_job(job("multi_worker_mirrored", "worker 0", "print('first line', flush=True); time.sleep(2.5)"))
    assert (tmp_path / "cluster" / "worker-0.log").read_text() == "first line\n"
    assert "small_member" not in sys.modules
