"""Processes gzip'd TFRecord files block by block, with Beam.

Each file is cut into blocks of records, and each block becomes a file of results, written by any free worker. Beam
itself cannot split gzip'd files; a worker skips the blocks before its own, which is cheap compared with the work on a
block. The files of results, in the order of their names, keep the order of the records.
"""

import os
import time
from collections.abc import Callable, Iterator

import apache_beam as beam
import tensorflow as tf

from stillhouse.modules import progress
from stillhouse.modules.atomic import new_file
from stillhouse.modules.ingestion.files import BLOCK, count_records, read

RECORDS_IN_BLOCK = 16_384
SECONDS_BETWEEN_REPORTS = 2.0

# Maps serialized examples, string [batch], to the same number of serialized records.
BatchFunction = Callable[[tf.Tensor], list[bytes]]


def blocks(file: str, records_in_block: int) -> Iterator[tuple[str, int, int, int]]:
    """Returns for each block its file, its number, the number of blocks, and its number of records."""
    records = count_records([file])
    count = -(-records // records_in_block)
    return (
        (file, number, count, min(records_in_block, records - number * records_in_block)) for number in range(count)
    )


class _WriteBlock(beam.DoFn):
    def __init__(self, make_function: Callable[[], BatchFunction], folder: str, records_in_block: int, batch_size: int):
        self._make_function = make_function
        self._folder = folder
        self._records_in_block = records_in_block
        self._batch_size = batch_size

    def setup(self):
        self._function = self._make_function()

    def process(self, block):
        file, number, count, block_records = block
        records = (
            read([file]).skip(number * self._records_in_block).take(self._records_in_block).batch(self._batch_size)
        )
        path = os.path.join(self._folder, f"{os.path.basename(file)}{BLOCK}{number:05d}-of-{count:05d}.gz")
        written, last_report_time = 0, time.monotonic()
        # Beam may lose or duplicate a worker.
        with new_file(path) as unfinished, tf.io.TFRecordWriter(unfinished, "GZIP") as writer:
            for batch in records.prefetch(1):
                for record in self._function(batch):
                    writer.write(record)
                    written += 1
                if time.monotonic() - last_report_time > SECONDS_BETWEEN_REPORTS:
                    last_report_time = time.monotonic()
                    progress.advanced(os.path.basename(path), written, block_records)
        yield written


class WriteBlocks(beam.PTransform):
    """Maps file names to files of results in `folder`; yields the number of records of each."""

    def __init__(
        self,
        make_function: Callable[[], BatchFunction],
        folder: str,
        batch_size: int,
        records_in_block: int = RECORDS_IN_BLOCK,
    ):
        """Stores the function and its parameters.

        Args:
          make_function: called once per worker; returns the function of a batch. Pickled.
          folder: folder of the results; created if it does not exist.
          batch_size: records per call of the function.
          records_in_block: records per file of results.
        """
        super().__init__()
        self._block = _WriteBlock(make_function, folder, records_in_block, batch_size)
        self._folder = folder
        self._records_in_block = records_in_block

    def expand(self, files):
        """Builds the transform, as Beam requires."""
        tf.io.gfile.makedirs(self._folder)
        return (
            files
            | "Cut" >> beam.FlatMap(blocks, self._records_in_block)
            | "SpreadOverWorkers" >> beam.Reshuffle()
            | "Write" >> beam.ParDo(self._block)
        )
