"""Work on gzip'd TFRecord files block by block, with Beam.

A file is counted, cut into blocks of records, and each block becomes a file of its own, made by whichever worker is
free. Gzip'd files cannot be split by Beam itself; a worker reads past the blocks before its own, which costs little
beside what is done with a block. The files, in the order of their names, keep the order of the records.
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

# From serialized examples, string [batch], to as many serialized records.
BatchFunction = Callable[[tf.Tensor], list[bytes]]


def _blocks(file: str, records_in_block: int) -> Iterator[tuple[str, int, int, int]]:
    """Returns, for each block, its file, its number, their number, and its records."""
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
        file, number, count, in_this = block
        records = (
            read([file]).skip(number * self._records_in_block).take(self._records_in_block).batch(self._batch_size)
        )
        path = os.path.join(self._folder, f"{os.path.basename(file)}{BLOCK}{number:05d}-of-{count:05d}.gz")
        done, told = 0, time.monotonic()
        # Workers may be lost or doubled.
        with new_file(path) as unfinished, tf.io.TFRecordWriter(unfinished, "GZIP") as writer:
            for batch in records.prefetch(1):
                for record in self._function(batch):
                    writer.write(record)
                    done += 1
                if time.monotonic() - told > SECONDS_BETWEEN_REPORTS:
                    told = time.monotonic()
                    progress.advanced(os.path.basename(path), done, in_this)
        yield done


class WriteBlocks(beam.PTransform):
    """From file names to files in `folder` whose records are made from theirs; gives the number of records of each."""

    def __init__(
        self,
        make_function: Callable[[], BatchFunction],
        folder: str,
        batch_size: int,
        records_in_block: int = RECORDS_IN_BLOCK,
    ):
        """Takes what is done.

        Args:
          make_function: called once per worker; returns the function of a batch. Pickled.
          folder: of the results; made if it is missing.
          batch_size: records in a call of the function.
          records_in_block: records in a file of results.
        """
        super().__init__()
        self._block = _WriteBlock(make_function, folder, records_in_block, batch_size)
        self._folder = folder
        self._records_in_block = records_in_block

    def expand(self, files):
        """As Beam asks."""
        tf.io.gfile.makedirs(self._folder)
        return (
            files
            | "Cut" >> beam.FlatMap(_blocks, self._records_in_block)
            | "SpreadOverWorkers" >> beam.Reshuffle()
            | "Write" >> beam.ParDo(self._block)
        )
