"""Decides cache: auto: memory if the decoded examples fit in a fraction of the free memory, otherwise disk."""

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
from stillhouse.modules.ingestion.parquet import parquet_bytes
from stillhouse.modules.settings import Ingestion

SAMPLE_BYTES = 1 << 20  # read from a file
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Sample:
    """The first records of a file."""

    records: list[bytes]
    bytes: int  # their size in the file


def sample(file: str) -> Sample:
    """Returns the complete records in the first bytes of a file; none of a corrupt file."""
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
    """Returns the approximate bytes of the files' examples in memory, estimated from the first records of one file."""
    if any(map(is_parquet, files)):
        return sum(map(parquet_bytes, filter(is_parquet, files)))
    for file in files:
        first = sample(file)
        count = len(first.records)
        if not count:
            continue
        example_bytes = sum(len(record) for record in first.records) / count
        if parser.is_dense:
            try:
                columns = parser.columns(tf.constant(first.records))
            except tf.errors.InvalidArgumentError:  # reading all of them gives a better message
                continue
            example_bytes = sum(narrowed(column.numpy()).nbytes for column in columns.values()) / count
        return round(example_bytes * sum(tf.io.gfile.stat(name).length for name in files) * count / first.bytes)
    return 0


def free_memory() -> int:
    """Returns the bytes that this process can still allocate, by the machine and by its control group's limit."""
    free = psutil.virtual_memory().available
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no control groups of version 2 here
        pass
    return max(free, 0)


def choose(options: Ingestion, decoded: int, processes: int = 1) -> tuple[str, str]:
    """Returns the chosen cache and a line with the reason.

    Args:
      options: the settings `ingestion`.
      decoded: bytes of the decoded examples.
      processes: number of processes on this machine that keep the examples.
    """
    if options.service_workers:
        return "disk", "cache: disk (ingestion.service_workers read files)"
    allowed = int(free_memory() * options.memory_share / processes)
    cache = "memory" if decoded <= allowed else "disk"
    size = f"{decoded / 1e6:,.1f} MB decoded, ingestion.memory_share allows {allowed / 1e6:,.0f} MB"
    return cache, f"cache: {cache} ({size})"


def remembered(folder: str | None, identity: str) -> str | None:
    """Returns the decision of an earlier start of the training job `identity`; the examples' order depends on it."""
    path = os.path.join(folder, f"{identity}.cache.json") if folder else None
    if path is None or not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)["cache"]


def remember(folder: str | None, identity: str, cache: str) -> None:
    """Stores the decision for a resumed training job."""
    if folder:
        tf.io.gfile.makedirs(folder)
        write_text(os.path.join(folder, f"{identity}.cache.json"), json.dumps({"cache": cache}))
