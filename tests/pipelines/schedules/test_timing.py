from datetime import datetime, timedelta, timezone
from itertools import islice

import pytest
from dateutil import tz
from hypothesis import given
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
    berlin = tz.gettz("Europe/Berlin")
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
