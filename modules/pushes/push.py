"""Adds a version to a push folder: whole, under a number of its own, whoever else pushes there.

A model is copied into a folder `.unfinished-MACHINE-PROCESS-RANDOM`, which model servers ignore; the copy is compared
with the fingerprint of the model that was checked, written to the disk, and renamed to the next number. A rename never
replaces anything: of several pushers, the one that comes second takes the next number.

A pusher holds a lock (flock) on its unfinished folder. The kernel releases it when the process ends, however it ends;
so the next push knows what a dead one of this machine has left, and removes it. What another machine has left is
removed when nothing in it has changed for a day. An object store has neither locks nor renames: there, only one
pusher at a time is safe.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from stillhouse.modules.atomic import is_remote, refuse_links, remove, rename_to_new
from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes.files import file_system, files_below
from stillhouse.modules.pushes.versions import PUSH_RECORD, model_fingerprint, next_number

UNFINISHED = ".unfinished"
SECONDS_UNTIL_OLD = 24 * 60 * 60
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # Linux; containers share it with their machine, and its locks
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def push(
    saved_model: str, push_path: str, fingerprint: str, record: dict[str, Any], remedy: str, at_least: int | None = None
) -> str:
    """Copies a SavedModel into the push folder as its newest version and returns the version's name.

    Args:
      saved_model: folder of the model.
      push_path: the push folder; made if it is missing.
      fingerprint: that of the model that was checked.
      record: what to write down beside fingerprint and time, JSON-able.
      remedy: what to do where the model is another one, for the message.
      at_least: the smallest number that the version may get; None: the time in seconds.

    Raises:
      MachineError: the model is not the one that was checked, or the disk is full. No version was added.
      UserError: the push folder cannot be written, or no number is free.
    """
    with explained(push_path):
        remove_dead(push_path)
        with unfinished_folder(push_path) as unfinished:
            copy_folder(saved_model, unfinished)
            copied = model_fingerprint(unfinished)
            if copied != fingerprint:
                raise MachineError(
                    f"{saved_model}: found a model with fingerprint {copied[:12]}; expected {fingerprint[:12]}, the "
                    f"model that was checked; nothing was pushed; {remedy}"
                )
            _write_record(unfinished, record | {"fingerprint": fingerprint})
            _sync(unfinished)
            return _claim(unfinished, push_path, int(time.time()) if at_least is None else at_least)


@contextmanager
def explained(push_path: str) -> Iterator[None]:
    """Turns what the file system says of the push folder into one sentence.

    Raises:
      MachineError: its disk is full.
      UserError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename or push_path
        if not (str(path).startswith(push_path) or push_path.startswith(str(path))):
            raise  # about the model
        raise _explanation(push_path, error) from error


def _explanation(push_path: str, error: OSError) -> UserError:
    if error.errno in NO_SPACE:
        return MachineError(
            f"push.path: no space left on the disk of {push_path}; nothing was pushed; free some and run again"
        )
    reason = f"{error.strerror or error} ({error.filename2 or error.filename or push_path})"
    return UserError(f"push.path: {push_path} cannot be written: {reason}; nothing was pushed; set another push.path")


@contextmanager
def unfinished_folder(folder: str) -> Iterator[str]:
    """Gives a new empty folder below `folder`, under a name of its own; removed at the end if it still has that name.

    Raises:
      OSError: it cannot be made.
    """
    path, lock = _new_locked_folder(os.path.join(folder, f"{UNFINISHED}-{_machine()}-{os.getpid()}-"))
    try:
        yield path
    finally:
        remove(path)
        if lock is not None:
            os.close(lock)


def remove_dead(folder: str) -> None:
    """Removes the unfinished folders that no process writes any more; links are removed, not followed."""
    files = file_system(folder)
    if not files.isdir(folder):
        return
    for name in files.listdir(folder):
        path = os.path.join(folder, name)
        if not name.startswith(".") or UNFINISHED not in name:
            continue
        if not is_remote(path) and os.path.islink(path):
            remove(path)  # nobody here makes links
        elif not is_remote(path) and name.startswith(f"{UNFINISHED}-{_machine()}-"):
            _remove_if_unlocked(path)
        elif _is_old(path):
            remove(path)


def copy_folder(source: str, target: str) -> None:
    """Copies the files below the folder `source` into the existing folder `target`."""
    files = file_system(target)
    for name in files_below(source):
        path = os.path.join(target, name)
        files.makedirs(os.path.dirname(path))
        files.copy(os.path.join(source, name), path)


def keep_teachers(staged: dict[str, str], push_path: str, name: str) -> None:
    """Gives teachers that were copied beforehand the name of their version, and removes those of older versions.

    Args:
      staged: {folder of a teacher's versions: its unfinished folder in there}.
      push_path: the push folder.
      name: of the version.
    """
    for folder, unfinished in staged.items():
        refuse_links(folder, below=push_path)
        with suppress(FileExistsError):  # an earlier attempt of this push has kept it
            _rename(unfinished, os.path.join(folder, name))
        for entry in file_system(folder).listdir(folder):
            if entry.isascii() and entry.isdigit() and int(entry) < int(name):
                remove(os.path.join(folder, entry))


def _machine() -> str:
    """Returns a name of the running kernel, within which a lock tells whether a process lives."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return f"{socket.gethostname()}-{file.read(8)}"
    except OSError:
        return socket.gethostname()


def _new_locked_folder(prefix: str) -> tuple[str, int | None]:
    """Makes a folder and returns its path and the descriptor that holds its lock, if the file system has locks."""
    while True:
        path = prefix + secrets.token_hex(4)
        file_system(path).makedirs(path)
        if is_remote(path):
            return path, None
        try:
            lock = _lock(path)
        except OSError:
            return path, None
        if lock is not None:  # else another push took the folder for one that a dead process has left
            return path, lock


def _remove_if_unlocked(path: str) -> None:
    try:
        lock = _lock(path)
    except OSError:  # a file system without locks, on which nobody can tell
        if _is_old(path):
            remove(path)
        return
    if lock is not None:
        remove(path)
        os.close(lock)


def _lock(path: str) -> int | None:
    """Returns a descriptor that holds the lock of a folder; None: another process has it, or the folder is gone.

    Raises:
      OSError: the file system has no locks for folders.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_old(path: str) -> bool:
    files = file_system(path)
    try:
        paths = [path, *(os.path.join(path, name) for name in files_below(path))]
        return max(files.modified(one) for one in paths) < time.time() - SECONDS_UNTIL_OLD
    except FileNotFoundError:  # its owner has just finished
        return False


def _write_record(version: str, record: dict[str, Any]) -> None:
    path = os.path.join(version, PUSH_RECORD)
    files = file_system(path)
    files.makedirs(os.path.dirname(path))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with files.open(path, "w") as file:
        file.write(json.dumps({"time": now} | record, indent=1))


def _sync(folder: str) -> None:
    """Writes the files below a folder to the disk: a power failure must not leave a version of empty files."""
    if is_remote(folder):
        return
    for parent, _, names in os.walk(folder):
        for path in (*(os.path.join(parent, name) for name in names), parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _claim(unfinished: str, push_path: str, at_least: int) -> str:
    """Gives an unfinished folder the next number in the push folder; returns that."""
    while True:
        name = str(next_number(push_path, at_least))
        with suppress(FileExistsError):  # another push was quicker
            _rename(unfinished, os.path.join(push_path, name))
            return name


def _rename(source: str, target: str) -> None:
    if not is_remote(target):
        rename_to_new(source, target)
        return
    import tensorflow as tf

    if tf.io.gfile.exists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    tf.io.gfile.rename(source, target)
