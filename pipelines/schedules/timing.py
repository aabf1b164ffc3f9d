"""When a schedule is due: a cron expression or an interval, with the same meaning on Kubeflow and on this machine."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo

from croniter import croniter
from croniter.croniter import CroniterBadDateError, CroniterError

from stillhouse.modules.errors import UserError

FIELDS = "minute hour day-of-month month day-of-week"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# What Kubeflow's parser (robfig/cron v1) knows. It takes five fields for second, minute, hour, day and month.
NAMES = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT"
KNOWN = re.compile(rf"([0-9*/,?-]|{NAMES})+", re.IGNORECASE)
MIN_SECONDS = 60


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

    def after(self, moment: datetime, start: datetime, zone: tzinfo = timezone.utc) -> Iterator[datetime]:
        """Gives the times after `moment`, in UTC.

        Args:
          moment: with a time zone.
          start: from which intervals are counted.
          zone: in which a cron expression is read.
        """
        if self.cron:
            times = croniter(self.cron, moment.astimezone(zone), second_at_beginning=True)
            while True:
                yield times.get_next(datetime).astimezone(timezone.utc)
        interval = timedelta(seconds=self._interval_seconds)
        number = max(0, (moment - start) // interval)
        while True:
            number += 1
            yield start.astimezone(timezone.utc) + number * interval


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
    seconds = int(match[1]) * UNITS[match[2]]
    if seconds < MIN_SECONDS:
        raise UserError(f"--every: found {every}; expected at least {MIN_SECONDS}s")
    return seconds


def until(moment: datetime, now: datetime) -> str:
    """Returns how long it is from `now` to `moment`, such as "in 5 h 20 min"."""
    minutes = max(0, round((moment - now).total_seconds() / 60))
    days, hours = divmod(minutes // 60, 24)
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes % 60} min" if minutes % 60 else ""]
    return "in " + (" ".join(part for part in parts[: 2 if days else 3] if part) or "less than a minute")
