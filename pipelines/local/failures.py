"""Why a node of a run failed, as one message where the user can do something about it."""

import errno
import shutil
import sys
import traceback
from pathlib import Path

import tensorflow as tf

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.settings import Settings
from stillhouse.pipelines.local.data_check import find_fault
from stillhouse.pipelines.local.paths import METADATA

# A run that fails on a disk with less than this has failed for want of space.
MIN_FREE_BYTES = 1 << 18


def _chain(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def explain(error: Exception, node: str | None, settings: Settings, root: Path) -> None:
    """Raises the UserError that explains why `node` failed; returns if it is a defect of ours."""
    chain = _chain(error)
    for link in chain:
        if isinstance(link, UserError):
            raise type(link)(f"{node}: {link}") from error
    text = "\n".join(str(link) for link in chain)
    if "file is not a database" in text or "database disk image is malformed" in text:  # SQLite's words
        raise MachineError(
            f"{root / METADATA}: the metadata store is corrupt; remove {root}, or choose another --root; the run then "
            "starts from the beginning"
        ) from error
    no_space = any(isinstance(link, OSError) and link.errno == errno.ENOSPC for link in chain)
    # What SQLite says when it runs out of space depends on the moment, so the disk itself is asked too.
    no_space = no_space or shutil.disk_usage(root).free < MIN_FREE_BYTES
    if no_space or "No space left on device" in text or "disk is full" in text or "disk I/O error" in text:
        raise MachineError(f"{node}: no space left on the disk of {root}; free some and run again") from error
    denied = any(isinstance(link, PermissionError) for link in chain) or any(
        isinstance(link, tf.errors.PermissionDeniedError) for link in chain
    )
    if denied or "readonly database" in text or "Read-only file system" in text:
        raise UserError(f"{node}: cannot write: {chain[-1]}; check --root ({root}) and push.path") from error
    if node == "ExampleGen":
        try:
            find_fault(settings.data)
        except UserError as fault:
            raise UserError(f"{node}: {fault}") from error
    source = sys.modules[settings.task].__file__
    for link in chain:
        in_task = [frame for frame in traceback.extract_tb(link.__traceback__) if frame.filename == source]
        if in_task:
            reason = f"{type(link).__name__}: {next(iter(str(link).splitlines()), '')}"
            location = f"{source}:{in_task[-1].lineno}"
            raise UserError(f"{node}: {settings.task}.{in_task[0].name} raised {reason} (at {location})") from error
