"""What can be said about the data before a run, and what was wrong with it after ExampleGen has failed."""

import csv
import difflib
import glob
import itertools
import os
import re
from collections.abc import Iterator

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Data, Evaluation

FIRST_RECORDS = 100  # of a TFRecord file, whose features are its columns: a record leaves out what it has no value of


def check_transfer(data: Data) -> None:
    """Checks that there are transfer examples, in files of the data's format; they need no label column.

    Raises:
      UserError: there are none, or a file is not of that format.
    """
    if data.transfer is None:
        return
    files = [name for name in sorted(glob.glob(os.path.join(data.transfer, "*"))) if os.path.isfile(name)]
    if not files:
        raise UserError(f"data.transfer: no files in {data.transfer} (relative to {os.getcwd()})")
    for name in files:
        _columns(data.format, name)


def data_files(data: Data) -> list[str]:
    """Returns the files of the data path (of every span and version, where the path has patterns), sorted.

    Raises:
      UserError: there is no such folder, or no file in it.
    """
    folder = data.path.replace("{SPAN}", "*").replace("{VERSION}", "*")
    if not glob.glob(folder):
        raise UserError(f"data.path: no folder {data.path} (relative to {os.getcwd()})")
    spans = re.escape(data.path).replace(r"\{SPAN\}", r"\d+").replace(r"\{VERSION\}", r"\d+")
    for name in glob.glob(folder):
        if "{SPAN}" in data.path and not re.fullmatch(spans, name):
            raise UserError(
                f"data.path: {name} matches {data.path}, but {{SPAN}} and {{VERSION}} are numbers; move it away"
            )
    patterns = [value if isinstance(value, str) else "*" for value in data.splits.values()]
    files = []
    for pattern in dict.fromkeys(patterns):
        matches = [name for name in sorted(glob.glob(os.path.join(folder, pattern))) if os.path.isfile(name)]
        if not matches:
            raise UserError(f"data.path: no files match {os.path.join(data.path, pattern)}")
        files += matches
    return files


def check_data(data: Data) -> set[str]:
    """Checks, from headers and first records alone, that there are examples and that they have the label column.

    Returns:
      The columns of all files.

    Raises:
      UserError: a file is missing, empty, of another format, or has no such column; or a threshold is for none.
    """
    if data.schema_file and not os.path.isfile(data.schema_file):
        raise UserError(f"data.schema: no file {data.schema_file} (relative to {os.getcwd()})")
    files = data_files(data)
    first, all_columns = None, set()
    for name in files:
        columns = _columns(data.format, name)
        if data.label not in columns:
            raise UserError(f"data.label: {name} has no column {data.label!r}; it has: {', '.join(columns)}")
        if data.format == "csv" and columns != (first := first or columns):
            raise UserError(
                f"{name}: its header differs from that of {files[0]}; all files of a CSV folder need the same"
            )
        all_columns |= set(columns)
    for key, shift in (("drift", data.drift), ("skew", data.skew)):
        for column in shift.thresholds if shift else ():
            _check_column(f"data.{key}.thresholds", column, all_columns)
    return all_columns


def check_evaluation_columns(columns: set[str], evaluation: Evaluation) -> None:
    """Checks that the columns of slices and query are among those of the data, as `check_data` returns them.

    Raises:
      UserError: a column is in no file.
    """
    keys = {column: "evaluation.slices" for columns in evaluation.slice_columns() for column in columns}
    if evaluation.query:
        keys[evaluation.query] = "evaluation.query"
    for column, key in keys.items():
        _check_column(key, column, columns)


def _check_column(key: str, column: str, columns: set[str]) -> None:
    if column not in columns:
        near = difflib.get_close_matches(column, columns, n=1)
        question = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"{key}: the data have no column {column!r}{question}; they have: {', '.join(sorted(columns))}")


def _columns(format: str, name: str) -> list[str]:
    columns_of = {"csv": _csv_columns, "parquet": _parquet_columns, "tfrecord": _tfrecord_columns}
    return columns_of[format](name)


def _csv_rows(name: str) -> Iterator[tuple[int, list[str]]]:
    with open(name, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: not UTF-8 after line {reader.line_num}: {error.reason}") from error
        except csv.Error as error:
            raise UserError(f"{name}, line {reader.line_num}: {error}") from error


def _csv_columns(name: str) -> list[str]:
    rows = _csv_rows(name)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{name}: the file is empty; expected a header line and examples")
    if next(rows, None) is None:
        raise UserError(f"{name}: found only a header line; expected examples below it")
    return header[1]


def _parquet_columns(name: str) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(name)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{name}: not a Parquet file: {error}") from error
    if not file.metadata.num_rows:
        raise UserError(f"{name}: the file has no rows")
    return file.schema_arrow.names


def _tfrecord_columns(name: str) -> list[str]:
    import tensorflow as tf

    columns: set[str] = set()
    count = 0
    for count, record in enumerate(itertools.islice(_tfrecords(name), FIRST_RECORDS), start=1):
        try:
            columns |= set(tf.train.Example.FromString(record).features.feature)
        except Exception as error:  # protobuf's DecodeError has several homes
            raise UserError(f"{name}: record {count} is not a tf.Example: {error}") from error
    if not count:
        raise UserError(f"{name}: the file has no records")
    return sorted(columns)


def _tfrecords(name: str) -> Iterator[bytes]:
    import tensorflow as tf

    with open(name, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    count = 0
    try:
        for record in tf.data.TFRecordDataset(name, compression_type="GZIP" if gzipped else "").as_numpy_iterator():
            yield record
            count += 1
    except tf.errors.DataLossError as error:
        raise UserError(
            f"{name}: corrupt or truncated after record {count} ({error.message.rpartition('}} ')[2]})"
        ) from error


def find_fault(data: Data) -> None:
    """Reads all the data in search of what made ExampleGen fail.

    Raises:
      UserError: found it; the message names the file and the place. Returns if nothing is wrong with the data.
    """
    check_data(data)
    for name in data_files(data):
        if data.format == "csv":
            rows = _csv_rows(name)
            _, header = next(rows)
            for line, row in rows:
                if len(row) != len(header):
                    raise UserError(
                        f"{name}, line {line}: {len(row)} values, but the header names {len(header)} columns"
                    )
        elif data.format == "tfrecord":
            for _ in _tfrecords(name):
                pass
        else:
            import pyarrow
            import pyarrow.parquet

            try:
                for _ in pyarrow.parquet.ParquetFile(name).iter_batches():
                    pass
            except (pyarrow.ArrowInvalid, OSError) as error:
                raise UserError(f"{name}: corrupt Parquet file: {error}") from error
