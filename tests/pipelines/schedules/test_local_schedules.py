"""Schedules on this machine: which runs are due, and what is kept of them. The scheduler itself: end_to_end."""

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.pipelines.schedules.scheduler import MAX_ATTEMPTS, Due, Scheduler, due_now
from stillhouse.pipelines.schedules.store import Execution, LocalSchedule, Store, lines_for_others

START = datetime(2026, 11, 25, 14, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def schedule(**changes):
    given = {"name": "nightly", "settings_file": "/x/blobs.yaml", "working_directory": "/x", "root": "/x/runs/blobs"}
    return LocalSchedule(**given | {"every_seconds": 3600, "created": START} | changes)


def run(due, outcome="pushed", **changes):
    return Execution(**{"due": due, "started": due or START, "outcome": outcome} | changes)


def test_nothing_is_due_before_its_time_and_once_at_it():
    assert due_now(schedule(), [], START + 0.9 * HOUR) is None
    assert due_now(schedule(), [], START + HOUR) == Due(START + HOUR)
    assert due_now(schedule(), [run(START + HOUR)], START + 1.9 * HOUR) is None


def test_of_what_was_missed_the_newest_is_run_and_the_others_are_counted():
    history = [run(START + HOUR)]
    assert due_now(schedule(), history, START + 4.5 * HOUR) == Due(START + 4 * HOUR, missed=2)


def test_with_catch_up_all_are_run_one_after_the_other():
    history = []
    for hour in (1, 2, 3):
        due = due_now(schedule(catch_up=True), history, START + 3.5 * HOUR)
        assert due == Due(START + hour * HOUR)
        history.append(run(due.due))
    assert due_now(schedule(catch_up=True), history, START + 3.5 * HOUR) is None


def test_a_run_that_was_killed_is_started_again_but_not_for_ever():
    history = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert due_now(schedule(), history, START + 1.1 * HOUR) == Due(START + HOUR)
        history.append(run(START + HOUR, "running" if attempt == 1 else "interrupted", attempt=attempt))
    assert due_now(schedule(), history, START + 1.1 * HOUR) is None
    assert due_now(schedule(), history, START + 2 * HOUR) == Due(START + 2 * HOUR)


def test_a_run_that_failed_waits_for_the_next_time():
    assert due_now(schedule(), [run(START + HOUR, "failed", exit_code=2)], START + 1.5 * HOUR) is None


def test_a_run_by_hand_is_none_of_the_schedule():
    assert due_now(schedule(), [run(None, "interrupted")], START + 0.5 * HOUR) is None
    assert due_now(schedule(), [run(None)], START + HOUR) == Due(START + HOUR)


def test_a_paused_schedule_is_never_due():
    assert due_now(schedule(enabled=False), [], START + 9 * HOUR) is None


def test_the_same_again_changes_nothing_and_a_change_keeps_the_pause(tmp_path):
    store = Store(tmp_path)
    assert store.create(schedule()) == "created"
    assert store.create(schedule(created=START + HOUR)) == "unchanged"
    assert store.get("nightly").created == START
    store.enable("nightly", False)
    assert store.create(schedule(every_seconds=7200)) == "changed"
    assert (store.get("nightly").enabled, store.get("nightly").every_seconds) == (False, 7200)
    assert store.names() == ["nightly"]


def test_what_is_resumed_counts_from_now(tmp_path):
    store = Store(tmp_path)
    store.create(schedule())
    store.enable("nightly", False)
    store.enable("nightly", True)
    assert due_now(store.get("nightly"), [], datetime.now(timezone.utc)) is None


def test_a_schedule_that_does_not_exist_is_named_with_those_that_do(tmp_path):
    store = Store(tmp_path)
    store.create(schedule())
    for action in (store.get, store.delete, store.execute):
        with pytest.raises(UserError, match="no schedule is named 'weekly'; expected one of: nightly"):
            action("weekly")


def test_two_runs_of_a_schedule_do_not_overlap_and_a_dead_one_holds_nothing(tmp_path):
    store = Store(tmp_path)
    store.create(schedule())
    code = f"""
import sys, time
from pathlib import Path
from stillhouse.pipelines.schedules.store import Store
with Store(Path({str(tmp_path)!r})).lock("nightly"):
    print("held", flush=True)
    time.sleep(600)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        assert store.is_running("nightly")
        for action in (store.execute, store.delete):
            with pytest.raises(MachineError, match="nightly: a run of this schedule is in progress"):
                action("nightly")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert not store.is_running("nightly")


def test_a_run_writes_down_what_came_of_it(tmp_path):
    store = Store(tmp_path / "schedules")
    store.create(schedule(settings_file=str(tmp_path / "none.yaml"), working_directory=str(tmp_path)))
    store.record("nightly", [run(START, "running")])
    ended = store.execute("nightly", START + HOUR, missed=2)
    killed, last = store.history("nightly")
    assert killed.outcome == "interrupted"
    assert (last.outcome, last.exit_code, last.missed, last.due) == ("failed", 2, 2, START + HOUR)
    assert last == ended
    assert last.ended >= last.started


def test_a_damaged_schedule_is_told_once_and_does_not_stop_the_others(tmp_path):
    store = Store(tmp_path)
    store.create(schedule(created=datetime.now(timezone.utc)))
    (tmp_path / "broken.json").write_text('{"name": "broken"')
    told = []
    scheduler = Scheduler(store, told.append)
    scheduler.look()
    scheduler.look()
    assert len(told) == 2
    assert "broken.json: corrupt" in told[0]
    assert told[1].startswith("nightly: next at ")


def test_a_run_that_cannot_be_started_is_told_once_and_not_tried_again_and_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.create(schedule(created=datetime.now(timezone.utc) - 1.5 * HOUR))
    told = []
    monkeypatch.setattr("stillhouse.pipelines.schedules.scheduler.sys.executable", "/bin/false")
    scheduler = Scheduler(store, told.append)
    while len(told) < 2:
        scheduler.look()
    scheduler.look()
    assert [line.split(";")[0].split(" due ")[0] for line in told[:2]] == [
        "nightly: started the run",
        "nightly: could not be started",
    ]
    assert len(told) == 3
    assert told[2].startswith("nightly: next at ")


def test_the_lines_for_cron_and_systemd_run_the_schedule(tmp_path):
    (line,) = lines_for_others(
        schedule(cron="0 0 2 * * *", every_seconds=None, working_directory="/my data"), Store(tmp_path)
    )
    assert line.startswith("crontab: 0 2 * * * cd '/my data' && ")
    assert line.endswith(f"stillhouse schedule run-now nightly --on local --folder {tmp_path}")
    (line,) = lines_for_others(schedule(), Store(tmp_path))
    assert line.startswith("systemd: systemd-run --user --unit=stillhouse-nightly --working-directory=/x ")
    assert "--on-unit-active=3600 " in line


def test_the_file_of_a_schedule_is_whole_or_not_there(tmp_path):
    store = Store(tmp_path)
    store.create(schedule())
    assert json.loads((tmp_path / "nightly.json").read_text())["every_seconds"] == 3600
    assert [path.name for path in tmp_path.iterdir()] == ["nightly.json"]
