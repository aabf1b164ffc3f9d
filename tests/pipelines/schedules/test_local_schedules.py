"""Schedules on this machine: which runs are due, and what is kept of them. The scheduler itself: end_to_end."""

import json
import random
import re
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import filelock
import pytest

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.pipelines.schedules.local_zone import local_zone
from stillhouse.pipelines.schedules.scheduler import MAX_ATTEMPTS, MAX_MISSED, Due, Scheduler, due_now, next_due
from stillhouse.pipelines.schedules.store import SCHEDULE_LOCK, Execution, LocalSchedule, Store, lines_for_others
from stillhouse.pipelines.schedules.timing import parse_timing

START = datetime(2026, 11, 25, 14, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def schedule(**changes):
    given = {"name": "nightly", "settings_file": "/x/blobs.yaml", "working_directory": "/x", "root": "/x/runs/blobs"}
    return LocalSchedule(**given | {"every_seconds": 3600, "created": START} | changes)


def run(due, outcome="pushed", **changes):
    return Execution(**{"due": due, "started": due or START, "outcome": outcome} | changes)


def test_the_output_of_a_run_is_not_written_through_a_link(tmp_path):
    store, events = Store(tmp_path / "schedules"), []
    store.create(schedule(created=datetime.now(timezone.utc) - 1.5 * HOUR))
    (tmp_path / "elsewhere").write_text("kept")
    store.log("nightly").symlink_to(tmp_path / "elsewhere")
    Scheduler(store, events.append).look()
    assert any("nightly.log: found a symbolic link" in event for event in events), events
    assert not any("started" in event for event in events)
    assert (tmp_path / "elsewhere").read_text() == "kept"


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


YEAR = timedelta(days=365)


@pytest.mark.parametrize("timing", [{}, {"cron": "0 0 * * * *", "every_seconds": None}], ids=["interval", "cron"])
def test_a_run_of_the_future_does_not_count_as_done(timing):
    """The case schedule-clock-back: the clock was a year ahead when the schedule was run."""
    history = [run(START + YEAR, "failed")]
    assert due_now(schedule(**timing), history, START + 0.5 * HOUR) is None
    assert next_due(schedule(**timing), history, START + 0.5 * HOUR) == START + HOUR
    assert due_now(schedule(**timing), history, START + HOUR) == Due(START + HOUR)


def test_after_the_clock_was_set_back_a_little_no_time_is_run_twice():
    history = [run(START + number * HOUR) for number in (1, 2, 3)]
    for hours in (1, 1.5, 2, 3):
        assert due_now(schedule(), history, START + hours * HOUR) is None
        assert next_due(schedule(), history, START + hours * HOUR) == START + 4 * HOUR
    assert due_now(schedule(), history, START + 4 * HOUR) == Due(START + 4 * HOUR)


@pytest.mark.parametrize("timing", [{}, {"cron": "0 0 * * * *", "every_seconds": None}], ids=["interval", "cron"])
def test_a_schedule_created_in_the_future_counts_from_now(tmp_path, timing):
    store = Store(tmp_path)
    store.create(schedule(**timing, created=datetime.now(timezone.utc) + YEAR))
    assert next_due(store.get("nightly"), [], START) == START + HOUR
    told = []
    scheduler = Scheduler(store, told.append)
    scheduler.look()
    assert store.get("nightly").created <= datetime.now(timezone.utc)
    assert due_now(store.get("nightly"), [], datetime.now(timezone.utc) + 1.1 * HOUR)
    assert "in the future (was the clock ahead?); counts from now" in told[0]
    assert told[1].startswith("nightly: next at ")
    scheduler.look()
    assert len(told) == 2


def test_the_scheduler_says_once_that_a_run_is_of_the_future(tmp_path):
    store = Store(tmp_path)
    store.create(schedule(created=datetime.now(timezone.utc)))
    store.record("nightly", [run(datetime.now(timezone.utc) + YEAR)])
    told = []
    scheduler = Scheduler(store, told.append)
    scheduler.look()
    scheduler.look()
    assert [line.rpartition("(")[2] for line in told] == ["was the clock ahead?)", "in 1 h)"]


@pytest.mark.parametrize("timing", [{"every_seconds": 60}, {"cron": "0 * * * * *", "every_seconds": None}])
def test_months_of_missed_times_are_looked_through_at_once(timing):
    now = START + timedelta(days=300, seconds=30)
    began = time.monotonic()
    assert due_now(schedule(**timing), [], now) == Due(now - timedelta(seconds=30), missed=MAX_MISSED)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_announced_is_what_is_run(zone, seed, monkeypatch):
    """Through two years with changes of the clocks; absences, and a clock that is set back."""
    monkeypatch.setenv("TZ", zone)
    pick = random.Random(f"{zone} {seed}")
    hours = pick.choice(["2", "1,2,3", "*", "*/6", "0,23"])
    days = pick.choice(["*", "1-7", "25-31"]) if hours != "*" else pick.choice(["29", "5"])
    cron = f"0 {pick.choice(['30', '0,45', '*/20'])} {hours} {days} * {pick.choice(['*', 'SUN'])}"
    nightly, history, now = schedule(cron=cron, every_seconds=None), [], START
    while now < START + 2 * YEAR:
        if due := due_now(nightly, history, now):  # missed in an absence
            assert due.due <= now < next_due(nightly, history, now)
            history.append(run(due.due))
        upcoming = next_due(nightly, history, now)
        assert due_now(nightly, history, upcoming - timedelta(seconds=1)) is None
        assert due_now(nightly, history, upcoming) == Due(upcoming)
        history.append(run(upcoming))
        now = upcoming
        if pick.random() < 0.2:
            now -= timedelta(minutes=pick.randint(1, 300))
        elif pick.random() < 0.2:
            now += timedelta(hours=pick.randint(1, 2000))
    dues = [execution.due for execution in history]
    assert len(dues) == len(set(dues)) > 10


@pytest.mark.parametrize(
    ("name", "near"),
    [("Europe/Berlim", "Europe/Berlin"), ("Berlin", "Europe/Berlin"), ("Australia/LordHowe", "Australia/Lord_Howe")],
)
def test_a_time_zone_that_does_not_exist_is_named_with_those_that_are_near(name, near, monkeypatch):
    monkeypatch.setenv("TZ", name)
    with pytest.raises(UserError, match=f"TZ: found '{name}'; expected a time zone such as .*{near}"):
        local_zone()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "CET-1CEST,nonsense"])
def test_a_time_zone_that_cannot_be_read_is_one_sentence(name, monkeypatch):
    monkeypatch.setenv("TZ", name)
    if name:
        with pytest.raises(UserError, match="TZ: found .*; expected a time zone such as "):
            local_zone()
    else:
        assert local_zone().utcoffset(START) is not None  # /etc/localtime, or UTC


@pytest.mark.parametrize(
    ("name", "summer", "winter"),
    [
        (":Europe/Berlin", "+0200", "+0100"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "+0200", "+0100"),
        ("<+0330>-3:30", "+0330", "+0330"),
        ("EST5EDT", "-0400", "-0500"),
    ],
)
def test_a_time_zone_is_taken_as_the_c_library_takes_it(name, summer, winter, monkeypatch):
    monkeypatch.setenv("TZ", name)
    days = [datetime(2026, month, 15, tzinfo=local_zone()) for month in (7, 1)]
    assert [f"{day:%z}" for day in days] == [summer, winter]


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


BROKEN = {
    "cut off": '{"name": "broken"',
    "no JSON": b"\xff\x00",
    "of another type": "[]",
    "never due": {"every_seconds": None},
    "due in two ways": {"cron": "0 0 2 * * *"},
    "no cron expression": {"cron": "0 0 2 * * someday", "every_seconds": None},
    "an interval beyond the calendar": {"every_seconds": 10**15},
    "a time without a zone": {"created": "2026-11-25T14:00:00"},
    "of another name": {"name": "nightly"},
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_damaged_schedule_is_told_once_and_does_not_stop_the_others(tmp_path, content):
    store = Store(tmp_path)
    store.create(schedule(created=datetime.now(timezone.utc)))
    if isinstance(content, dict):
        content = json.dumps(schedule(name="broken").model_dump(mode="json") | content)
    (tmp_path / "broken.json").write_bytes(content.encode() if isinstance(content, str) else content)
    told = []
    scheduler = Scheduler(store, told.append)
    scheduler.look()
    scheduler.look()
    assert len(told) == 2
    assert f"{tmp_path / 'broken.json'}: corrupt (" in told[0]
    assert "\n" not in told[0]
    assert told[1].startswith("nightly: next at ")
    store.delete("broken")
    assert store.names() == ["nightly"]


@pytest.mark.parametrize(
    "content", ["5", "null", "{}", '[{"due": 1}]', "[", '[{"due": null, "started": "2026-11-25"}]']
)
def test_a_damaged_history_is_told_once_and_does_not_stop_the_others(tmp_path, content):
    store = Store(tmp_path)
    for name in ("broken", "nightly"):
        store.create(schedule(name=name, created=datetime.now(timezone.utc)))
    (tmp_path / "broken.history.json").write_text(content)
    told = []
    scheduler = Scheduler(store, told.append)
    scheduler.look()
    scheduler.look()
    assert told[0] == f"broken: {tmp_path / 'broken.history.json'}: corrupt; delete it"
    assert len(told) == 2
    assert told[1].startswith("nightly: next at ")


def test_what_the_system_refuses_to_one_schedule_and_a_defect_do_not_stop_the_others(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for name in ("a-folder", "defect"):
        store.create(schedule(name=name, created=datetime.now(timezone.utc) - 1.5 * HOUR))
    store.create(schedule(created=datetime.now(timezone.utc)))
    store.log("a-folder").mkdir()
    history = store.history

    def broken_history(name):
        return history(name) if name != "defect" else 1 // 0

    monkeypatch.setattr(store, "history", broken_history)
    told = []
    scheduler = Scheduler(store, told.append)
    scheduler.look()
    scheduler.look()
    assert [line.partition(":")[0] for line in told[-2:]] == ["defect", "nightly"] or told[-1].startswith("a-folder")
    assert any("Is a directory" in line for line in told)
    assert any("ZeroDivisionError" in line and "broken_history" in line for line in told)
    assert any(line.startswith("nightly: next at ") for line in told)


def test_two_schedules_of_one_root_wait_for_each_other(tmp_path):
    """Both run, one after the other, also beside a run that was started by hand."""
    store, root = Store(tmp_path / "schedules"), tmp_path / "root"
    for name in ("hourly", "nightly"):
        missing = str(tmp_path / "none.yaml")
        store.create(schedule(name=name, settings_file=missing, working_directory=str(tmp_path), root=str(root)))
    root.mkdir()
    for lock_name in (".lock", SCHEDULE_LOCK):
        lines, outcomes = [], []

        def execute(lines=lines, outcomes=outcomes):
            outcomes.append(store.execute("nightly", START + HOUR, on_event=lines.append).outcome)

        thread = threading.Thread(target=execute)
        with filelock.FileLock(root / lock_name):
            thread.start()
            while not lines:
                time.sleep(0.05)
            time.sleep(0.5)
            assert not outcomes
            assert store.is_running("nightly")
        thread.join()
        assert outcomes == ["failed"]  # there are no such settings
        assert lines == [f"waiting for another run in {root}"]
    assert store.execute("hourly", START + HOUR).outcome == "failed"


def test_a_working_directory_that_is_gone_is_a_failed_run(tmp_path):
    store = Store(tmp_path / "schedules")
    store.create(schedule(working_directory=str(tmp_path / "gone"), root=str(tmp_path / "root")))
    with pytest.raises(UserError, match="nightly: its working directory .*gone is gone"):
        store.execute("nightly", START + HOUR)
    (run,) = store.history("nightly")
    assert (run.outcome, run.exit_code) == ("failed", 2)


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


# What crontab(5) of Vixie's cron takes in a field: no ?, no ranges of names, no range that ends before it begins.
CRONTAB_FIELD = re.compile(r"\*|\d+(-\d+)?(,\d+(-\d+)?)*")


def crontab_line(tmp_path, cron, directory="/x"):
    timing = parse_timing(cron, None)
    nightly = schedule(cron=timing.cron, every_seconds=None, working_directory=str(directory))
    (line,) = lines_for_others(nightly, Store(tmp_path))
    return line.removeprefix("crontab: ")


@pytest.mark.parametrize(
    ("cron", "fields"),
    [
        ("0 2 * * *", "0 2 * * *"),
        ("0 0 6 * * *", "0 6 * * *"),
        ("0 6 ? * MON", "0 6 * * 1"),
        ("0 6 * * mon-fri", "0 6 * * 1-5"),
        ("0 6 1 JAN-MAR,DEC ?", "0 6 1 1-3,12 *"),
        ("0 6 * * FRI-MON", "0 6 * * 0,1,5,6"),
        ("*/15 * * * *", "0,15,30,45 * * * *"),
        ("5/20 0-23 * * *", "5,25,45 * * * *"),
        ("0 6 */10 * 1", "0 6 1,11,21,31 * 1"),
        ("*/90 * * * *", "0 * * * *"),
    ],
)
def test_the_fields_of_the_crontab_line_are_those_that_crontab_takes(tmp_path, cron, fields):
    line = crontab_line(tmp_path, cron)
    assert line.split()[:5] == fields.split()
    assert line.split()[5] == "cd"
    assert all(CRONTAB_FIELD.fullmatch(field) for field in fields.split())


def test_a_schedule_with_seconds_has_no_crontab_line(tmp_path):
    assert lines_for_others(schedule(cron="30 0 2 * * *", every_seconds=None), Store(tmp_path)) == []


def as_cron(text):
    """Returns the command of a crontab line: up to a %, except after a backslash, which is removed before a %."""
    command, escaped = "", False
    for character in text:
        if character == "%":
            if not escaped:
                break
            command = command[:-1]
        command += character
        escaped = character == "\\" and not escaped
    return command


@pytest.mark.parametrize("folder", ["plain", "100% sure", "100%", "back\\%slash", "it's 5% \\\\%"])
def test_the_crontab_line_runs_the_schedule_in_its_folder(tmp_path, folder, monkeypatch):
    directory = tmp_path / folder
    directory.mkdir()
    program = tmp_path / "bin" / "stillhouse"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\npwd\nprintf "%s\\\\n" "$*"\n')
    program.chmod(0o755)
    monkeypatch.setattr("stillhouse.pipelines.schedules.store.sys.executable", str(program.parent / "python"))
    line = crontab_line(directory / "schedules", "0 2 * * *", directory).split(maxsplit=5)[5]
    shown = subprocess.run(["/bin/sh", "-c", as_cron(line)], capture_output=True, text=True, check=True).stdout
    arguments = f"schedule run-now nightly --on local --folder {directory / 'schedules'}"
    assert shown == f"{directory}\n{arguments}\n"


def test_the_line_for_systemd_runs_the_schedule(tmp_path):
    (line,) = lines_for_others(schedule(), Store(tmp_path))
    assert line.startswith("systemd: systemd-run --user --unit=stillhouse-nightly --working-directory=/x ")
    assert "--on-unit-active=3600 " in line


def test_the_file_of_a_schedule_is_whole_or_not_there(tmp_path):
    store = Store(tmp_path)
    store.create(schedule())
    assert json.loads((tmp_path / "nightly.json").read_text())["every_seconds"] == 3600
    assert [path.name for path in tmp_path.iterdir()] == ["nightly.json"]
