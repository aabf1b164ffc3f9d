"""TFRecord files, record by record, past records that are corrupt.

A TFRecord is a length, its checksum, the record, its checksum. As long as the length is right, the next record can be
found. TensorFlow's own readers give up the rest of the file, and so does Beam's.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import google_crc32c
import tensorflow as tf

from stillhouse.modules.ingestion.files import compression_of

LENGTH = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")
MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h


class BrokenFileError(Exception):
    """No record can be found any more from `record` on, counted from 1."""

    def __init__(self, record: int, reason: str):
        """Takes the number of the record and what is wrong with it."""
        super().__init__(f"record {record}: {reason}")
        self.record, self.reason = record, reason


def _masked_checksum(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def framed_records(stream: BinaryIO) -> Iterator[bytes | None]:
    """Gives the records of a stream, which then stands behind each of them; None for one with a wrong checksum.

    Raises:
      BrokenFileError: the stream ends within a record, cannot be decompressed, or a length is corrupt.
    """
    number = 1
    while True:
        try:
            head = stream.read(LENGTH.size + CHECKSUM.size)
            if not head:
                return
            if len(head) < LENGTH.size + CHECKSUM.size:
                raise BrokenFileError(number, "the file ends within it")
            packed_length = head[: LENGTH.size]
            if _masked_checksum(packed_length) != CHECKSUM.unpack_from(head, LENGTH.size)[0]:
                raise BrokenFileError(number, "its length is corrupt")
            (length,) = LENGTH.unpack(packed_length)
            record = stream.read(length)
            tail = stream.read(CHECKSUM.size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BrokenFileError(number, f"the file cannot be decompressed there: {error}") from error
        if len(record) < length or len(tail) < CHECKSUM.size:
            raise BrokenFileError(number, "the file ends within it")
        yield record if _masked_checksum(record) == CHECKSUM.unpack(tail)[0] else None
        number += 1


def records_of(file: str) -> Iterator[bytes | None]:
    """Gives the records of a TFRecord file, gzip'd or plain; None for one with a wrong checksum.

    Raises:
      BrokenFileError: the file ends within a record, cannot be decompressed, or a length is corrupt.
    """
    with tf.io.gfile.GFile(file, "rb") as raw:
        yield from framed_records(cast(BinaryIO, gzip.GzipFile(fileobj=raw) if compression_of(file) else raw))
