"""When a schedule is due: a cron expression or an interval, with the same meaning on Kubeflow and on this machine.

croniter computes with local times only. What they mean where clocks change (daylight saving) is decided here:

  a local time that never happens   is due at the first moment after the gap
  a local time that happens twice   is due once, the first time
  a pattern of all hours            (every 15 minutes) has no such times: it is due whenever clocks show one of its
                                    minutes, so that the same time passes between two of them as on any other day
"""

import bisect
import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import takewhile

from croniter import croniter
from croniter.croniter import HOUR_FIELD, SECOND_FIELD, UNIX_FIELDS, CroniterBadDateError, CroniterError

from stillhouse.modules.errors import UserError

FIELDS = "minute hour day-of-month month day-of-week"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# What Kubeflow's parser (robfig/cron v1) knows. It takes five fields for second, minute, hour, day and month.
NAMES = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT"
KNOWN = re.compile(rf"([0-9*/,?-]|{NAMES})+", re.IGNORECASE)
MIN_SECONDS = 60
MAX_YEARS = 100  # of an interval; its times have to be in Python's calendar
DAYS_OF_A_YEAR = 365
MAX_DIGITS = 20  # that are read of an interval, which is too long then
SECOND = timedelta(seconds=1)
# A range of one value; croniter takes it for all values.
ONE_VALUE = re.compile(r"\b0*(\w+)-0*\1\b(/\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Timing:
    """One of the two."""

    cron: str | None = None  # six fields, seconds first
    every_seconds: int | None = None

    @property
    def _interval_seconds(self) -> int:
        assert self.every_seconds is not None, "without cron there is an interval"
        return self.every_seconds

    def __str__(self) -> str:
        if self.cron:
            return f"cron {self.cron.removeprefix('0 ')}"
        seconds = self._interval_seconds
        unit, size = next((unit, size) for unit, size in reversed(UNITS.items()) if seconds % size == 0)
        return f"every {seconds // size}{unit}"

    @property
    def crontab_fields(self) -> str | None:
        """The five fields of a crontab line with the same times; None: there is none, as it has seconds.

        They have numbers only: crontab knows no `?` and no ranges of names, and takes a day `*/2` for any day in its
        rule that the day of the month or of the week has to match.
        """
        assert self.cron, "an interval has none"
        expanded = _croniter(self.cron, datetime(2000, 1, 1)).expanded
        if expanded[SECOND_FIELD] != [0]:
            return None
        return " ".join(_numbers(expanded[field]) for field in UNIX_FIELDS)

    def after(self, moment: datetime, start: datetime, zone: tzinfo = timezone.utc) -> Iterator[datetime]:
        """Gives the times after `moment`, in UTC.

        Args:
          moment: with a time zone.
          start: from which intervals are counted.
          zone: in which a cron expression is read.
        """
        if self.cron:
            yield from _cron_times_after(self.cron, moment, zone)
        interval = timedelta(seconds=self._interval_seconds)
        number = max(0, (moment - start) // interval)
        while True:
            number += 1
            yield start.astimezone(timezone.utc) + number * interval

    def latest(self, moment: datetime, start: datetime, zone: tzinfo = timezone.utc) -> datetime | None:
        """Returns the last time up to `moment`, in UTC, without a step for each time before it; None: there is none.

        Args:
          moment: with a time zone.
          start: from which intervals are counted; a cron expression has times before it, too.
          zone: in which a cron expression is read.
        """
        if not self.cron:
            interval = timedelta(seconds=self._interval_seconds)
            number = (moment - start) // interval
            return start.astimezone(timezone.utc) + number * interval if number > 0 else None
        wall = _wall(moment, zone).replace(microsecond=0)
        walls = _croniter(self.cron, wall - _repeated_part(wall, zone) + SECOND)
        while True:
            earlier = walls.get_prev(datetime)
            moments = _moments_of(earlier, zone) or [_end_of_gap(earlier, zone)]
            times = _cron_times_after(self.cron, moments[0] - SECOND, zone)
            passed = list(takewhile(lambda time: time <= moment, times))
            if passed:  # else it is in a gap, and all hours are in the pattern
                return passed[-1]


def _cron_times_after(cron: str, moment: datetime, zone: tzinfo) -> Iterator[datetime]:
    wall = _wall(moment, zone)
    walls = _croniter(cron, wall - _repeated_part(wall, zone))
    all_hours = walls.expanded[HOUR_FIELD] == ["*"]
    last = moment
    pending: list[datetime] = []  # second moments of local times that happen twice
    while True:
        wall = walls.get_next(datetime)
        moments = _moments_of(wall, zone)
        if not all_hours:
            moments = moments[:1] or [_end_of_gap(wall, zone)]
        for time in moments:
            heapq.heappush(pending, time)
        # The first moments of later local times are later than that of this one.
        while moments and pending and pending[0] <= moments[0]:
            time = heapq.heappop(pending)
            if time > last:  # several local times of a gap are one moment
                last = time
                yield time


def _numbers(values: list) -> str:
    """Returns a field of a crontab line: `*`, or numbers and ranges."""
    if values == ["*"]:
        return "*"
    ranges: list[list[int]] = []
    for value in values:
        if ranges and value == ranges[-1][-1] + 1:
            ranges[-1].append(value)
        else:
            ranges.append([value])
    # Two numbers are no shorter as a range.
    parts = [f"{part[0]}-{part[-1]}" if len(part) > 2 else ",".join(map(str, part)) for part in ranges]
    return ",".join(parts)


def _croniter(cron: str, wall: datetime) -> croniter:
    return croniter(ONE_VALUE.sub(r"\1", cron), wall, second_at_beginning=True)


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    """Returns what clocks in the zone show, without a time zone."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _moments_of(wall: datetime, zone: tzinfo) -> list[datetime]:
    """Returns the moments at which clocks in the zone show `wall`: one, none if they skip it, two if they repeat it."""
    return [moment for moment in _readings(wall, zone) if _wall(moment, zone) == wall]


def _readings(wall: datetime, zone: tzinfo) -> list[datetime]:
    """Returns `wall` in UTC by the offsets before and after a change of the clocks, the earlier moment first."""
    return sorted({wall.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc) for fold in (0, 1)})


def _repeated_part(wall: datetime, zone: tzinfo) -> timedelta:
    """Returns by how much clocks are set back in the change that repeats `wall`; 0: it happens once, or never."""
    moments = _moments_of(wall, zone)
    return moments[-1] - moments[0] if moments else timedelta()


def _end_of_gap(wall: datetime, zone: tzinfo) -> datetime:
    """Returns the moment at which clocks skip `wall`."""
    before, after = _readings(wall, zone)
    offset = before.astimezone(zone).utcoffset()

    def is_changed(seconds: int) -> bool:
        return (before + seconds * SECOND).astimezone(zone).utcoffset() != offset

    return before + SECOND * bisect.bisect_left(range((after - before) // SECOND), True, key=is_changed)


def parse_timing(cron: str | None, every: str | None) -> Timing:
    """Returns the timing of the options --cron and --every.

    Raises:
      UserError: not exactly one is given, or it is none, or it is never due.
    """
    if cron is not None and every is None:
        return Timing(cron=_six_fields(cron))
    if every is not None and cron is None:
        return Timing(every_seconds=_seconds(every))
    raise UserError("--cron, --every: found both or none; expected exactly one of them")


def _six_fields(cron: str) -> str:
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise UserError(
            f"--cron {cron!r}: found {len(fields)} fields; expected five ({FIELDS}), or six with seconds first"
        )
    unknown = [field for field in fields if not KNOWN.fullmatch(field)]
    if unknown:
        raise UserError(f"--cron {cron!r}: {unknown[0]!r} is not understood; fields have numbers, names, and * / , - ?")
    six = " ".join(fields if len(fields) == 6 else ["0", *fields])
    if re.search(r"(^|[,-])7", fields[-1]):
        raise UserError(f"--cron {cron!r}: the days of the week are 0 (Sunday) to 6, or SUN to SAT")
    try:
        croniter(six, datetime(2000, 1, 1, tzinfo=timezone.utc), second_at_beginning=True).get_next(datetime)
    except CroniterBadDateError as error:
        raise UserError(f"--cron {cron!r}: found a day that no year has; expected a date that exists") from error
    except (CroniterError, ValueError) as error:
        reason = str(error).replace(f"[{six}] ", "")
        raise UserError(f"--cron {cron!r}: {reason} (order of the fields: {FIELDS})") from error
    return six


def _seconds(every: str) -> int:
    match = re.fullmatch(r"(\d+)([smhdw])", every.strip())
    if not match:
        raise UserError(f"--every {every!r}: expected a number and a unit, such as 30m, 6h, 1d or 2w")
    seconds = int(match[1][:MAX_DIGITS]) * UNITS[match[2]]
    if seconds < MIN_SECONDS:
        raise UserError(f"--every: found {every}; expected at least {MIN_SECONDS}s")
    days = MAX_YEARS * DAYS_OF_A_YEAR
    if seconds > days * UNITS["d"]:
        raise UserError(f"--every: found {every}; expected at most {days}d ({MAX_YEARS} years)")
    return seconds


def until(moment: datetime, now: datetime) -> str:
    """Returns how long it is from `now` to `moment`, such as "in 5 h 20 min"."""
    minutes = max(0, round((moment - now).total_seconds() / 60))
    days, hours = divmod(minutes // 60, 24)
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes % 60} min" if minutes % 60 else ""]
    return "in " + (" ".join(part for part in parts[: 2 if days else 3] if part) or "less than a minute")
