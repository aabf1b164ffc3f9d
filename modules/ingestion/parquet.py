"""Reads Parquet files as serialized tf.Examples, by Arrow record batches and tfx_bsl's encoder.

TensorFlow has no reader for Parquet, so cache: disk stores the examples of such files.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.files import RECORDS_AT_ONCE
from stillhouse.modules.ingestion.safe_parquet import open_parquet


def _as_lists(file: str, name: str, column: pa.Array) -> pa.Array:
    """Returns a column in a type of tf.Example, one list of values per row; a missing value is a missing list."""
    types, column_type = pa.types, column.type
    is_list = types.is_list(column_type) or types.is_large_list(column_type)
    value_type = column_type.value_type if is_list else column_type
    if types.is_integer(value_type) or types.is_boolean(value_type):
        target = pa.int64()
    elif types.is_floating(value_type):
        target = pa.float32()
    elif (
        types.is_string(value_type)
        or types.is_large_string(value_type)
        or types.is_binary(value_type)
        or types.is_large_binary(value_type)
    ):
        target = pa.large_binary()
    else:
        raise UserError(
            f"{file}: column {name!r}: found type {column_type}; expected numbers, strings or lists of them; convert it"
        )
    if is_list:
        return column.cast(pa.large_list(target))
    present = column.is_valid()
    ends = np.concatenate([[0], np.cumsum(present.to_numpy(zero_copy_only=False), dtype=np.int64)])
    lists = pa.LargeListArray.from_arrays(pa.array(ends), column.filter(present).cast(target))
    return pc.if_else(present, lists, pa.nulls(len(column), lists.type))


def parquet_records(file: str) -> Iterator[list[bytes]]:
    """Yields the rows of a Parquet file as serialized tf.Examples, several thousand at a time.

    Raises:
      UserError: the file is corrupt, or a column has a type without counterpart in tf.Example.
    """
    encoder = RecordBatchToExamplesEncoder()
    for batch in _batches(file):
        names = batch.schema.names
        columns = [_as_lists(file, name, batch.column(number)) for number, name in enumerate(names)]
        yield encoder.encode(pa.RecordBatch.from_arrays(columns, names))


def _batches(file: str) -> Iterator[pa.RecordBatch]:
    try:
        with open_parquet(file, file) as opened:
            yield from opened.iter_batches(RECORDS_AT_ONCE)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: corrupt: {next(iter(str(error).splitlines()), '')}; recreate it") from error


def parquet_bytes(file: str) -> int:
    """Returns the size of a Parquet file's data, uncompressed."""
    with open_parquet(file, file) as opened:
        footer = opened.metadata
    return sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
