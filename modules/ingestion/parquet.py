"""Parquet files as serialized tf.Examples, by Arrow record batches and tfx_bsl's encoder.

TensorFlow has no reader for Parquet, so the examples of such files are kept as cache: disk keeps them.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.files import RECORDS_AT_ONCE


def _as_lists(file: str, name: str, column: pa.Array) -> pa.Array:
    """Returns a column in a type that tf.Example has, one list of values a row; a missing value is a missing list."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    value_kind = kind.value_type if is_list else kind
    if pa.types.is_integer(value_kind) or pa.types.is_boolean(value_kind):
        to = pa.int64()
    elif pa.types.is_floating(value_kind):
        to = pa.float32()
    elif (
        pa.types.is_string(value_kind)
        or pa.types.is_large_string(value_kind)
        or pa.types.is_binary(value_kind)
        or pa.types.is_large_binary(value_kind)
    ):
        to = pa.large_binary()
    else:
        raise UserError(f"{file}: column {name!r} is {kind}; numbers, strings and lists of them are read")
    if is_list:
        return column.cast(pa.large_list(to))
    present = column.is_valid()
    ends = np.concatenate([[0], np.cumsum(present.to_numpy(zero_copy_only=False), dtype=np.int64)])
    lists = pa.LargeListArray.from_arrays(pa.array(ends), column.filter(present).cast(to))
    return pc.if_else(present, lists, pa.nulls(len(column), lists.type))


def parquet_records(file: str) -> Iterator[list[bytes]]:
    """Gives the rows of a Parquet file as serialized tf.Examples, some thousand at a time.

    Raises:
      UserError: the file is damaged, or a column has a type that tf.Example does not know.
    """
    encoder = RecordBatchToExamplesEncoder()
    for batch in _batches(file):
        names = batch.schema.names
        columns = [_as_lists(file, name, batch.column(number)) for number, name in enumerate(names)]
        yield encoder.encode(pa.RecordBatch.from_arrays(columns, names))


def _batches(file: str) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(RECORDS_AT_ONCE)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: damaged: {next(iter(str(error).splitlines()), '')}") from error


def parquet_bytes(file: str) -> int:
    """Returns the size of a Parquet file's data, uncompressed."""
    footer = pq.read_metadata(file)
    return sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
