"""Why a node of a run failed, as one message where the user can do something about it."""

import os
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from stillhouse.modules.errors import MachineError, UserError
from stillhouse.modules.pushes.push import NO_SPACE
from stillhouse.modules.settings import Settings
from stillhouse.pipelines.local.data_check import find_fault
from stillhouse.pipelines.local.metadata_check import corrupt
from stillhouse.pipelines.local.paths import ARTIFACTS, METADATA

# TFDV's words on a column with values of several types, which are numbers of FeatureNameStatistics.Type.
SEVERAL_TYPES = re.compile(r"Cannot determine the type of feature (.+)\. Found values of types (\d) and (\d)\.")
TYPES = ("integers", "floats", "strings", "bytes", "messages")
# tfx_bsl's, on records of one batch.
ANOTHER_TYPE = re.compile(r'Feature had wrong type, expected (\w+)_list, found (\w+)_list for feature "(.+?)"')
# What Python, TensorFlow and Beam say of a file that is not there.
GONE = "(?:No such file|No files found|does not exist)"
# A run that fails on a disk with less than this has failed for want of space.
MIN_FREE_BYTES = 1 << 18


def _chain(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _full_disk(chain: list[BaseException], settings: Settings, root: Path) -> str | None:
    """Returns a path on the disk for want of whose space a node has failed; None: that was not the reason."""
    for link in chain:
        if isinstance(link, OSError) and link.errno in NO_SPACE:
            return link.filename2 or link.filename or _fullest(settings, root) or str(root)
        if "No space left on device" in str(link):  # TensorFlow's, after the file's name
            named = re.search(r"(/[^\s;]+); No space left on device", str(link))
            return named[1] if named else _fullest(settings, root) or str(root)
        if "disk is full" in str(link) or "disk I/O error" in str(link):  # SQLite's, about the metadata store
            return str(root)
    # What SQLite says when it runs out of space depends on the moment, so the disks themselves are asked too.
    return _fullest(settings, root)


def _fullest(settings: Settings, root: Path) -> str | None:
    folders = [str(root), os.path.abspath(settings.push.path), tempfile.gettempdir()]
    if settings.ingestion.cache_folder:
        folders.append(os.path.abspath(settings.ingestion.cache_folder))
    for folder in folders:
        if os.path.isdir(folder) and shutil.disk_usage(folder).free < MIN_FREE_BYTES:
            return folder
    return None


def _artifact_without_a_file(text: str, root: Path) -> str | None:
    """Returns the artifact of the run that lacks a file according to an error, or None."""
    artifact = re.escape(os.path.join(os.path.abspath(root), ARTIFACTS)) + r"/[^/\s]+/[^/\s]+/\d+"
    found = re.search(f"({artifact}).*{GONE}|{GONE}.*?({artifact})", text)
    return found and (found[1] or found[2])


def explain(error: Exception, node: str | None, settings: Settings, root: Path) -> None:
    """Raises the UserError that explains why `node` failed; returns if it is a defect of ours."""
    chain = _chain(error)
    for link in chain:
        if isinstance(link, UserError):
            raise type(link)(f"{node}: {link}") from error
    text = "\n".join(str(link) for link in chain)
    if "file is not a database" in text or "database disk image is malformed" in text:  # SQLite's words
        raise corrupt(root / METADATA, text.splitlines()[0][:200]) from error
    if full := _full_disk(chain, settings, root):
        raise MachineError(f"{node}: no space left on the disk of {full}; free some and run again") from error
    denied = any(isinstance(link, PermissionError) for link in chain) or any(
        isinstance(link, tf.errors.PermissionDeniedError) for link in chain
    )
    if denied or "readonly database" in text or "Read-only file system" in text:
        raise UserError(f"{node}: cannot write: {chain[-1]}; check --root ({root}) and push.path") from error
    if damaged := _artifact_without_a_file(text, root):
        raise UserError(
            f"{node}: files of {damaged} are gone; delete that folder, and the next run makes them anew"
        ) from error
    if node == "ExampleGen":
        try:
            find_fault(settings.data)
        except UserError as fault:
            raise UserError(f"{node}: {fault}") from error
    if several := SEVERAL_TYPES.search(text):
        types = " and ".join(TYPES[int(number)] for number in several.groups()[1:])
        raise UserError(f"{node}: the column {several[1]!r} has {types}; expected one type in all files") from error
    if another := ANOTHER_TYPE.search(text):
        types = f"{another[1]} and {another[2]} values"
        raise UserError(f"{node}: the column {another[3]!r} has {types}; expected one type in all files") from error
    source = sys.modules[settings.task].__file__
    for link in chain:
        in_task = [frame for frame in traceback.extract_tb(link.__traceback__) if frame.filename == source]
        if in_task:
            reason = f"{type(link).__name__}: {next(iter(str(link).splitlines()), '')}"
            location = f"{source}:{in_task[-1].lineno}"
            hint = _columns_to_look_at(root) if node == "Transform" else ""
            raise UserError(
                f"{node}: {settings.task}.{in_task[0].name} raised {reason} (at {location}){hint}"
            ) from error


def _columns_to_look_at(root: Path) -> str:
    """Returns the columns of the newest schema that are strings or have not one value in each example, as a hint."""
    schemas = list((root / ARTIFACTS / "SchemaGen" / "schema").glob("*/schema.pbtxt"))
    if not schemas:
        return ""
    newest = max(schemas, key=lambda path: int(path.parent.name))
    schema = text_format.Parse(newest.read_text(encoding="utf-8"), schema_pb2.Schema())
    strings = [feature.name for feature in schema.feature if feature.type == schema_pb2.BYTES]
    sparse = [feature.name for feature in schema.feature if not feature.HasField("shape")]
    hint = f"; columns with strings: {', '.join(strings)}" if strings else ""
    return hint + (
        f"; columns with missing or several values, which are SparseTensors: {', '.join(sparse)}" if sparse else ""
    )
