"""The versions in a push folder, as a model server sees them, and what a push wrote down about each.

A version is an entry with a number for a name. A model server loads the largest number it can, so these count:

has a number        any entry that a server takes for a version, whoever made it; the next push gets a larger number
holds a SavedModel  a folder with a number and a saved_model.pb; the largest of these is what is served
made by stillhouse  a SavedModel with a model card; it can be compared with, and started from

A number is the time of the push in seconds, or the next free one after the largest.
"""

import hashlib
import json
import os
import re
import time
from datetime import datetime
from typing import Any

from stillhouse.modules.errors import UserError
from stillhouse.modules.pushes.files import file_system, files_below

NONE = ""  # no version
SAVED_MODEL = "saved_model.pb"
# In the folder for files that TensorFlow does not look at.
PUSH_RECORD = os.path.join("assets.extra", "push.json")
CARD = os.path.join("assets.extra", "stillhouse.json")  # as in modules.models.card, which imports TensorFlow
LARGEST_NUMBER = 2**63 - 1  # TensorFlow Serving reads an int64, with blanks and a plus sign before it
NUMBER = re.compile(r"\s*\+?[0-9]+\s*", re.ASCII)
BLOCK_BYTES = 1 << 20


def number_of(name: str) -> int | None:
    """Returns the number that a model server reads from a name, or None: the entry is no version."""
    if not NUMBER.fullmatch(name):
        return None
    number = int(name)
    return number if number <= LARGEST_NUMBER else None


def numbered_entries(push_path: str) -> list[str]:
    """Returns the names of all entries with a number, whatever they hold, largest number first."""
    files = file_system(push_path)
    if not files.isdir(push_path):
        return []
    numbers = {name: number_of(name) for name in files.listdir(push_path)}
    entries = [(number, name) for name, number in numbers.items() if number is not None]
    return [name for _, name in sorted(entries, reverse=True)]


def proposed_number(push_path: str) -> int:
    """Returns the number of a version that is pushed now: the time in seconds, or more if there is a larger number.

    Raises:
      UserError: an entry has the largest number that there is.
    """
    return next_number(push_path, int(time.time()))


def next_number(push_path: str, at_least: int) -> int:
    """Returns a number that is larger than every other in the push folder, and not less than `at_least`.

    Raises:
      UserError: an entry has the largest number that there is.
    """
    for name in numbered_entries(push_path)[:1]:
        if number_of(name) == LARGEST_NUMBER:
            raise UserError(
                f"push.path: {os.path.join(push_path, name)} has the largest number that a model server reads; no new "
                "version can be the newest; move it away"
            )
        return max(at_least, int(name) + 1)
    return at_least


def pushed_versions(push_path: str) -> list[str]:
    """Returns the names of the versions that hold a SavedModel, newest first."""
    exists = file_system(push_path).exists
    return [name for name in numbered_entries(push_path) if exists(os.path.join(push_path, name, SAVED_MODEL))]


def newest_version(push_path: str) -> str:
    """Returns the name of the version that a model server serves, or NONE."""
    return next(iter(pushed_versions(push_path)), NONE)


def served_folder(push_path: str) -> str | None:
    """Returns the folder of the version that a model server serves; None: there is none."""
    newest = newest_version(push_path)
    return None if newest == NONE else os.path.join(push_path, newest)


def made_by_stillhouse(version: str) -> bool:
    """Returns whether the SavedModel in the folder `version` was exported by stillhouse."""
    return file_system(version).exists(os.path.join(version, CARD))


def model_fingerprint(saved_model: str) -> str:
    """Returns a hash of the names and bytes of a SavedModel's files, without the record of its push."""
    open_file = file_system(saved_model).open
    digest = hashlib.sha256()
    for name in files_below(saved_model):
        if name == PUSH_RECORD:
            continue
        digest.update(os.fsencode(name) + b"\0")
        with open_file(os.path.join(saved_model, name), "rb") as file:
            size = 0
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        digest.update(size.to_bytes(8, "big"))
    return digest.hexdigest()


def read_record(version: str) -> dict[str, Any] | None:
    """Returns what was written down at the push of the folder `version`; None: it was not pushed by stillhouse."""
    path = os.path.join(version, PUSH_RECORD)
    files = file_system(path)
    if not files.exists(path):
        return None
    try:
        with files.open(path, "r") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("fingerprint"), str) else None


def fingerprint_of_version(version: str) -> str:
    """Returns the fingerprint that was recorded at the push; that of the files where none was."""
    record = read_record(version)
    return record["fingerprint"] if record else model_fingerprint(version)


def is_damaged(version: str) -> bool:
    """Returns whether the files in the folder `version` are other than those that were pushed."""
    record = read_record(version)
    return record is not None and record["fingerprint"] != model_fingerprint(version)


def pushed_at(push_path: str, name: str) -> int:
    """Returns when a version was pushed, in seconds; a version without a record tells it by its number."""
    record = read_record(os.path.join(push_path, name)) or {}
    try:
        return int(datetime.fromisoformat(record["time"]).timestamp())
    except (KeyError, TypeError, ValueError):  # pushed by an older stillhouse, or a teacher whose student is gone
        return int(name)


def version_to_report(push_path: str, fingerprint: str) -> str:
    """Returns the newest version if it holds, undamaged, the model with this fingerprint, or NONE.

    An entry with a larger number, even one that no server can load, keeps a version from being the newest: a server
    that starts tries the largest number alone.
    """
    newest = newest_version(push_path)
    if newest == NONE or newest != numbered_entries(push_path)[0]:
        return NONE
    version = os.path.join(push_path, newest)
    holds_it = fingerprint_of_version(version) == fingerprint and not is_damaged(version)
    return newest if holds_it else NONE
