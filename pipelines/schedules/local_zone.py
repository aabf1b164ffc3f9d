"""This machine's time zone, as the C library takes it: from TZ, else from /etc/localtime, else UTC."""

import difflib
import io
import os
import re
import struct
import zoneinfo
from datetime import timezone, tzinfo

from stillhouse.modules.errors import UserError

LOCALTIME = "/etc/localtime"
# Names and offsets without a file: CET-1CEST,M3.5.0,M10.5.0/3 or <+03>-3.
POSIX = re.compile(r"([A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?\d.*")
SUGGESTIONS = 3


def local_zone() -> tzinfo:
    """Returns this machine's time zone, with its changes between summer and winter.

    Raises:
      UserError: TZ names none.
    """
    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if not name:
            return _zone_in(LOCALTIME) if os.path.exists(LOCALTIME) else timezone.utc
        if os.path.isabs(name):
            return _zone_in(name)
        try:
            return zoneinfo.ZoneInfo(name)
        except zoneinfo.ZoneInfoNotFoundError:
            if not POSIX.fullmatch(name):
                raise
            return _posix_zone(name)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise UserError(f"TZ: found {name!r}; expected a time zone such as {_similar(name)}") from error


def _zone_in(path: str) -> tzinfo:
    with open(path, "rb") as file:
        return zoneinfo.ZoneInfo.from_file(file)


def _posix_zone(text: str) -> tzinfo:
    """Returns the zone of such a text; zoneinfo reads it at the end of a file of format TZif (RFC 8536)."""
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)  # one type of local time, four characters of its name
    block = b"TZif2" + bytes(15) + counts + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(block + block + f"\n{text}\n".encode()))


def _similar(name: str) -> str:
    """Returns existing names that are near a mistaken one."""
    names = {existing.lower(): existing for existing in zoneinfo.available_timezones()}
    # Most mistakes are in the place: Berlin, Europe/Berlim, Germany/Berlin.
    by_place = {existing.rpartition("/")[2].lower(): existing for existing in sorted(names.values())}
    near = [names[key] for key in difflib.get_close_matches(name.lower(), names, SUGGESTIONS)]
    place = name.rpartition("/")[2].lower()
    near += [by_place[key] for key in difflib.get_close_matches(place, by_place, SUGGESTIONS)]
    return ", ".join(dict.fromkeys(near[:SUGGESTIONS])) or "Europe/Berlin, UTC"
