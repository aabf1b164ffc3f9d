import bisect
import time
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import islice, pairwise, product, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.schedules.timing import Timing, parse_timing, until

START = datetime(2026, 11, 25, 14, 0, tzinfo=timezone.utc)


def times(cron=None, every=None, count=3, moment=START, **more):
    timing = parse_timing(cron, every)
    return [f"{found:%m-%d %H:%M:%S}" for found in islice(timing.after(moment, START, **more), count)]


def test_five_fields_get_their_seconds_and_six_have_them_first():
    assert parse_timing("0 2 * * *", None) == Timing(cron="0 0 2 * * *")
    assert times("0 2 * * *", count=2) == ["11-26 02:00:00", "11-27 02:00:00"]
    assert times("30 0 2 * * *", count=1) == ["11-26 02:00:30"]
    assert times("0 6 * * MON,FRI") == ["11-27 06:00:00", "11-30 06:00:00", "12-04 06:00:00"]


def test_intervals_are_counted_from_the_start():
    assert times(every="6h", count=2) == ["11-25 20:00:00", "11-26 02:00:00"]
    assert times(every="90m", count=1, moment=START + timedelta(hours=4)) == ["11-25 18:30:00"]


def test_a_cron_expression_is_read_in_its_time_zone_also_when_that_changes_to_summer():
    berlin = ZoneInfo("Europe/Berlin")
    before = datetime(2026, 3, 27, 12, tzinfo=timezone.utc)
    assert times("0 8 * * *", moment=before, zone=berlin) == ["03-28 07:00:00", "03-29 06:00:00", "03-30 06:00:00"]


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 2 30 2 *", "found a day that no year has"),
        ("0 0 2 31 4 *", "found a day that no year has"),
        ("2 * * *", "found 4 fields; expected five .* or six with seconds first"),
        ("0 0 2 * * * 2027", "found 7 fields"),
        ("@daily", "found 1 fields"),
        ("61 * * * *", "out of range"),
        ("0 2 * * 7", r"0 \(Sunday\) to 6"),
        ("0 2 L * *", "'L' is not understood; fields have numbers, names"),
        ("0 2 * * MON#1", "'MON#1' is not understood"),
        ("0 2 * * someday", "'someday' is not understood"),
        ("0 2 * * JAN", "order of the fields: minute hour"),
    ],
)
def test_a_cron_expression_that_is_none_is_refused(cron, message):
    with pytest.raises(UserError, match=message):
        parse_timing(cron, None)


@pytest.mark.parametrize(("cron", "hours"), [("0 6-6 * * *", [6]), ("0 06-6/3 * * *", [6]), ("0 6-7 * * *", [6, 7])])
def test_a_range_of_one_value_is_that_value(cron, hours):
    listed = islice(parse_timing(cron, None).after(START, START), len(hours))
    assert [moment.hour for moment in listed] == hours


@pytest.mark.parametrize("every", ["36501d", "5215w", "99999999w", "9" * 5000 + "s"])
def test_an_interval_beyond_the_calendar_is_refused(every):
    with pytest.raises(UserError, match=r"--every: found \d+.; expected at most 36500d \(100 years\)"):
        parse_timing(None, every)


def test_29_february_is_a_day():
    assert times("0 0 29 2 *", count=1) == ["02-29 00:00:00"]


@pytest.mark.parametrize("every", ["6", "h", "6 hours", "-1h", "1.5h"])
def test_an_interval_that_is_none_is_refused(every):
    with pytest.raises(UserError, match="expected a number and a unit, such as 30m"):
        parse_timing(None, every)


def test_an_interval_that_is_too_short_is_refused():
    with pytest.raises(UserError, match="expected at least 60s"):
        parse_timing(None, "59s")


@pytest.mark.parametrize("given", [(None, None), ("0 2 * * *", "6h")])
def test_one_of_the_two_is_needed(given):
    with pytest.raises(UserError, match="expected exactly one of them"):
        parse_timing(*given)


@given(st.integers(60, 10**7), st.integers(-(10**6), 10**8))
def test_the_next_time_of_an_interval_is_the_first_after_the_moment(seconds, later):
    moment = START + timedelta(seconds=later)
    found = next(Timing(every_seconds=seconds).after(moment, START))
    passed = (found - START) / timedelta(seconds=seconds)
    assert passed == int(passed) >= 1
    assert found > moment
    assert passed == 1 or found - timedelta(seconds=seconds) <= moment


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(20, "less than a minute"), (60, "1 min"), (3600, "1 h"), (9000, "2 h 30 min"), (200_000, "2 d 7 h")],
)
def test_how_long_it_is_reads_well(seconds, text):
    assert until(START + timedelta(seconds=seconds), START) == f"in {text}"


def test_a_timing_reads_as_it_was_given():
    assert str(parse_timing("0 2 * * *", None)) == "cron 0 2 * * *"
    assert str(parse_timing("30 0 2 * * *", None)) == "cron 30 0 2 * * *"
    assert [str(parse_timing(None, every)) for every in ("90m", "120m", "1w")] == ["every 90m", "every 2h", "every 1w"]


# Where clocks change: zone, a day before, cron, and what clocks show when it is due.
CHANGES = [
    # At 02:00 clocks show 03:00.
    ("Europe/Berlin", "2026-03-28", "30 2 * * *", ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]),
    ("Europe/Berlin", "2026-03-28", "0,15 2,3 29 3 *", ["29 03:00+0200", "29 03:15+0200"]),
    ("Europe/Berlin", "2026-03-29", "15 * * * *", ["29 00:15+0100", "29 01:15+0100", "29 03:15+0200"]),
    # At 03:00 clocks show 02:00.
    ("Europe/Berlin", "2026-10-24", "30 2 * * *", ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]),
    ("Europe/Berlin", "2026-10-25", "0 1-3 * * *", ["25 01:00+0200", "25 02:00+0200", "25 03:00+0100"]),
    ("Europe/Berlin", "2026-10-25", "0 * * * *", ["25 00:00+0200", "25 01:00+0200", "25 02:00+0200", "25 02:00+0100"]),
    # At 02:00 clocks show 01:00.
    ("America/St_Johns", "2026-10-31", "30 1 * * *", ["31 01:30-0230", "01 01:30-0230", "02 01:30-0330"]),
    # Until 2011 clocks went back to the day before: at 00:01 they showed 23:01.
    ("America/St_Johns", "2010-11-06", "15 23 * * *", ["06 23:15-0230", "07 23:15-0330"]),
    (
        "America/St_Johns",
        "2010-11-06",
        "50 * 6 11 *",
        [f"06 {hour:02}:50-0230" for hour in range(24)] + ["06 23:50-0330"],
    ),
    # Half an hour: at 02:00 clocks show 02:30, and 01:30.
    ("Australia/Lord_Howe", "2026-10-03", "15 2 * * *", ["03 02:15+1030", "04 02:30+1100", "05 02:15+1100"]),
    ("Australia/Lord_Howe", "2026-04-04", "45 1 * * *", ["04 01:45+1100", "05 01:45+1100", "06 01:45+1030"]),
    # 30 December 2011 never happened.
    ("Pacific/Apia", "2011-12-29", "0 6 * * *", ["29 06:00-1000", "31 00:00+1400", "31 06:00+1400"]),
    ("Pacific/Apia", "2011-12-29", "0 6 30 12 *", ["31 00:00+1400", "30 06:00+1400"]),
    # The clocks go back for Ramadan: at 03:00 they show 02:00, and at 02:00 03:00 after it.
    ("Africa/Casablanca", "2026-02-14", "30 2 * * *", ["14 02:30+0100", "15 02:30+0100", "16 02:30+0000"]),
    ("Africa/Casablanca", "2026-03-21", "30 2 * * *", ["21 02:30+0000", "22 03:00+0100", "23 02:30+0100"]),
]


@pytest.mark.parametrize(("name", "day", "cron", "shown"), CHANGES, ids=lambda value: str(value)[:20])
def test_a_time_that_never_happens_or_twice_is_due_once(name, day, cron, shown):
    zone = ZoneInfo(name)
    start = datetime.fromisoformat(day).replace(tzinfo=zone) - timedelta(seconds=1)
    moments = islice(parse_timing(cron, None).after(start, start, zone), len(shown))
    assert [f"{moment.astimezone(zone):%d %H:%M%z}" for moment in moments] == shown


@pytest.mark.parametrize(
    ("name", "day"), [(name, day) for name, day, *_ in CHANGES if name != "Australia/Lord_Howe" and "2010" not in day]
)
def test_every_quarter_of_an_hour_is_that_through_every_change(name, day):
    zone = ZoneInfo(name)
    start = datetime.fromisoformat(day).replace(tzinfo=zone)
    moments = list(islice(parse_timing("*/15 * * * *", None).after(start, start, zone), 300))
    assert {later - moment for moment, later in pairwise(moments)} == {timedelta(minutes=15)}


MINUTE = timedelta(minutes=1)
YEARS = {
    "Europe/Berlin": 2026,
    "America/St_Johns": 2010,
    "Australia/Lord_Howe": 2026,
    "Pacific/Apia": 2011,
    "Africa/Casablanca": 2026,
}


@cache
def changes(name):
    """Returns the moments in two years, and the day around them, at which clocks change, by looking at each minute."""
    zone, year = ZoneInfo(name), YEARS[name]
    hour = datetime(year - 1, 12, 30, tzinfo=timezone.utc)
    at = []
    while hour.year < year + 2 or hour.day < 3:
        later = hour + timedelta(hours=1)
        if hour.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            minutes = [hour + number * MINUTE for number in range(1, 61)]
            at.append(next(m for m in minutes if m.astimezone(zone).utcoffset() == later.astimezone(zone).utcoffset()))
        hour = later
    return at


@cache
def offsets_and_gaps(name):
    """Returns the offsets of the two years, and of each gap what clocks show before and after it, and its moment."""
    zone, offsets, gaps = ZoneInfo(name), set(), []
    for at in changes(name):
        before, after = ((moment.astimezone(zone)) for moment in (at - MINUTE, at))
        offsets |= {before.utcoffset(), after.utcoffset()}
        gaps.append((before.replace(tzinfo=None) + MINUTE, after.replace(tzinfo=None), at))
    return offsets, gaps


def moments_of(wall, name):
    """Returns when clocks show `wall`, or the change that skips it; knows nothing of PEP 495."""
    offsets, gaps = offsets_and_gaps(name)
    moments = sorted(wall.replace(tzinfo=timezone.utc) - offset for offset in offsets)
    shown = [moment for moment in moments if moment.astimezone(ZoneInfo(name)).replace(tzinfo=None) == wall]
    return shown, [at for before, after, at in gaps if before <= wall < after]


@st.composite
def crons(draw):
    """Gives a cron expression, and its minutes, hours, days of the month and months; None: all."""
    minutes = draw(st.sets(st.integers(0, 59), min_size=1, max_size=3))
    hours = draw(st.none() | st.sets(st.integers(0, 3) | st.integers(22, 23), min_size=1, max_size=4))
    months = draw(st.sets(st.sampled_from([2, 3, 4, 10, 11, 12]), min_size=1, max_size=2)) if hours is None else None
    days = draw(st.none() | st.sets(st.integers(1, 31), min_size=1, max_size=9)) if months is None else None
    fields = [",".join(map(str, sorted(values))) if values else "*" for values in (minutes, hours, days, months)]
    return " ".join([*fields, "*"]), (minutes, hours, days, months)


def expected_times(name, values):
    minutes, hours, days, months = values
    year = YEARS[name]
    day, times = datetime(year, 1, 1), set()
    while day.year < year + 2:
        if (days is None or day.day in days) and (months is None or day.month in months):
            for hour, minute in product(range(24) if hours is None else hours, minutes):
                shown, skips = moments_of(day.replace(hour=hour, minute=minute), name)
                times |= set(shown if hours is None else shown[:1] or skips)
        day += timedelta(days=1)
    return sorted(times)


@given(st.sampled_from(sorted(YEARS)), crons(), st.data())
@settings(max_examples=12, deadline=None)
def test_over_two_years_each_local_time_is_due_exactly_once_and_in_order(name, drawn, data):
    cron, values = drawn
    expected, zone, timing = expected_times(name, values), ZoneInfo(name), parse_timing(cron, None)
    start, end = (datetime(YEARS[name] + years, 1, 1, tzinfo=zone) for years in (0, 2))
    moments = list(takewhile(lambda moment: moment < end, timing.after(start - timedelta(seconds=1), start, zone)))
    assert moments == expected
    assert all(moment < later for moment, later in pairwise(moments))
    near = data.draw(st.lists(st.sampled_from(changes(name)), min_size=1))
    at = data.draw(st.lists(st.datetimes(datetime(YEARS[name], 3, 1), datetime(YEARS[name] + 1, 12, 1)), min_size=1))
    asked = [moment.replace(tzinfo=timezone.utc) for moment in at]
    asked += [moment + data.draw(st.integers(-120, 120)) * MINUTE for moment in near]
    for moment in asked:
        position = bisect.bisect_right(expected, moment)
        if 0 < position < len(expected):
            assert timing.latest(moment, start, zone) == expected[position - 1]
            assert next(timing.after(moment, start, zone)) == expected[position]


def test_the_latest_time_of_an_interval_is_that_before_the_next():
    timing = parse_timing(None, "90m")
    assert timing.latest(START + timedelta(minutes=89), START) is None
    assert timing.latest(START + timedelta(minutes=90), START) == START + timedelta(minutes=90)
    assert timing.latest(START + timedelta(minutes=300), START) == START + timedelta(minutes=270)


def test_the_latest_time_is_had_without_a_step_for_each_before_it():
    began = time.monotonic()
    latest = parse_timing("* * * * * *", None).latest(START, START, ZoneInfo("Europe/Berlin"))
    assert latest == START
    assert time.monotonic() - began < 1
