"""cache: auto, decided: memory if the decoded examples fit in a share of what is free, else disk."""

import io
import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import tensorflow as tf

from stillhouse.modules.atomic import write_text
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import compression_of, is_parquet
from stillhouse.modules.ingestion.framing import BrokenFileError, framed_records
from stillhouse.modules.ingestion.in_memory import narrowed
from stillhouse.modules.ingestion.options import Options
from stillhouse.modules.ingestion.parquet import parquet_bytes

SAMPLE_BYTES = 1 << 20  # of a file
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Sample:
    """The first records of a file."""

    records: list[bytes]
    bytes: int  # that they take in the file


def sample(file: str) -> Sample:
    """Returns the records that stand whole and undamaged in the first bytes of a file."""
    with tf.io.gfile.GFile(file, "rb") as opened:
        raw = opened.read(SAMPLE_BYTES)
    try:
        data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(raw) if compression_of(file) else raw
    except zlib.error:
        return Sample([], len(raw))
    stream, records, end = io.BytesIO(data), [], 0
    with suppress(BrokenFileError):  # the last record is cut off
        for record in framed_records(stream):
            end = stream.tell()
            if record is not None:
                records.append(record)
    return Sample(records, round(len(raw) * end / len(data)) if data else 0)


def decoded_bytes(files: Sequence[str], parser: ExampleParser) -> int:
    """Returns about how many bytes the examples of the files take in memory, from the first records of one file."""
    if any(map(is_parquet, files)):
        return sum(map(parquet_bytes, filter(is_parquet, files)))
    for file in files:
        first = sample(file)
        if not first.records:
            continue
        bytes_each = sum(len(record) for record in first.records) / len(first.records)
        if parser.is_dense:
            try:
                columns = parser.columns(tf.constant(first.records))
            except tf.errors.InvalidArgumentError:  # said better when all of them are read
                continue
            bytes_each = sum(narrowed(column.numpy()).nbytes for column in columns.values()) / len(first.records)
        file_bytes = sum(tf.io.gfile.stat(name).length for name in files)
        return round(bytes_each * file_bytes * len(first.records) / first.bytes)
    return 0


def free_memory() -> int:
    """Returns the bytes that this process can still have, by the machine and by the limit of its control group."""
    free = psutil.virtual_memory().available
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no control groups of version 2 here
        pass
    return max(free, 0)


def choose(options: Options, decoded: int, processes: int = 1) -> tuple[str, str]:
    """Returns the cache that is taken, and a line that says why.

    Args:
      options: how much memory the examples may have.
      decoded: bytes of the decoded examples.
      processes: on this machine that keep them.
    """
    if options.service_workers:
        return "disk", "cache: disk (ingestion.service_workers read files)"
    allowed = int(free_memory() * options.memory_share / processes)
    cache = "memory" if decoded <= allowed else "disk"
    size = f"{decoded / 1e6:,.1f} MB decoded, ingestion.memory_share allows {allowed / 1e6:,.0f} MB"
    return cache, f"cache: {cache} ({size})"


def remembered(folder: str | None, identity: str) -> str | None:
    """Returns what an earlier start of the training `identity` decided; the order of its examples depends on it."""
    path = os.path.join(folder, f"{identity}.cache.json") if folder else None
    if path is None or not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)["cache"]


def remember(folder: str | None, identity: str, cache: str) -> None:
    """Keeps the decision for the time that the training is resumed."""
    if folder:
        tf.io.gfile.makedirs(folder)
        write_text(os.path.join(folder, f"{identity}.cache.json"), json.dumps({"cache": cache}))
