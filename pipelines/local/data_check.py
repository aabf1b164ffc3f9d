"""What can be said about the data before a run, and what was wrong with it after ExampleGen has failed."""

import csv
import difflib
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Data, Evaluation

COMPRESSED = (".gz", ".bz2", ".deflate", ".zst")  # Beam decompresses what has such a name; TFX reads its header as text
FIRST_RECORDS = 100  # of a TFRecord file, whose features are its columns: a record leaves out what it has no value of


def check_transfer(data: Data) -> None:
    """Checks that there are transfer examples, in files of the data's format; they need no label column.

    Raises:
      UserError: there are none, or a file is not of that format.
    """
    if data.transfer is None:
        return
    files = _files("data.transfer", os.path.join(data.transfer, "*"), data.format)
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
        matches = _files("data.path", os.path.join(folder, pattern), data.format)
        if not matches:
            raise UserError(f"data.path: no files match {os.path.join(data.path, pattern)}")
        files += matches
    return files


def _files(key: str, pattern: str, format: str) -> list[str]:
    """Returns the files that match, sorted.

    Raises:
      UserError: something else matches that ExampleGen would try to read; for a pipe it would wait for ever.
    """
    matches = sorted(glob.glob(pattern))
    for name in matches:
        kind = "a folder" if os.path.isdir(name) else "a special file" if os.path.exists(name) else "a broken link"
        # Beam, which lists the files of the other formats, leaves out folders and broken links; TFX does not.
        if not os.path.isfile(name) and (format == "csv" or kind == "a special file"):
            raise UserError(f"{key}: {name} is {kind}; expected files alone; move it away")
    return [name for name in matches if os.path.isfile(name)]


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
    try:
        return columns_of[format](name)
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror}") from error


def _csv_records(name: str) -> Iterator[tuple[int, str]]:
    """Yields what ExampleGen takes for an example, with its first line: lines up to an even number of quotes."""
    record, first, quotes = "", 1, 0
    with open(name, newline="\n", encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            record += line
            quotes += line.count('"')
            if quotes % 2 == 0:
                yield first, record
                record, first, quotes = "", number + 1, 0
    if record:
        raise UserError(f"{name}, line {first}: found a quote that nothing closes; close or double it")


def _csv_rows(name: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows that are not blank, with their first lines."""
    for line, record in _csv_records(name):
        try:
            record.encode()
            if "\0" in record:  # Python 3.10's csv refuses it too, newer ones do not
                raise UserError(f"{name}, line {line}: found a NUL byte; expected UTF-8 text")
            row = next(csv.reader([record]))
        except UnicodeEncodeError as error:
            byte = ord(record[error.start]) & 0xFF
            raise UserError(f"{name}, line {line}: not UTF-8: found the byte 0x{byte:02X}; save it as UTF-8") from error
        except csv.Error as error:
            raise UserError(f"{name}, line {line}: {_reason(error, record)}") from error
        if row:
            yield line, row


def _reason(error: csv.Error, record: str) -> str:
    """Returns why a record cannot be parsed; some of csv's own words are about Python."""
    if "new-line" not in str(error):
        return str(error)
    if "\n" in record.rstrip():
        return "found a quote within a value; expected quotes around the whole value, and two for each within it"
    return "found a line end of CR alone; expected LF or CR LF"


def _csv_columns(name: str) -> list[str]:
    compression = next((ending for ending in COMPRESSED if name.endswith(ending)), None)
    if compression:
        raise UserError(f"{name}: found a name in {compression}, so a compressed CSV; decompress the file or rename it")
    rows = _csv_rows(name)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{name}: the file is empty; expected a header line and examples")
    columns = header[1]
    if columns[0].startswith("\ufeff"):
        raise UserError(f"{name}: begins with a byte order mark; save the file as UTF-8 without one")
    _, first_line = next(_csv_records(name))
    if first_line.strip().split(",") != columns:  # ExampleGen takes what stands between commas, quotes included
        raise UserError(
            f"{name}, line 1: expected column names without quotes, commas and line ends, and no blank line before "
            "them; rename the columns"
        )
    (column, count), *_ = Counter(columns).most_common(1)
    if count > 1:
        raise UserError(f"{name}: the header names the column {column!r} {count} times; rename or remove all but one")
    if next(rows, None) is None:
        raise UserError(f"{name}: found only a header line; expected examples below it")
    return columns


def _parquet_columns(name: str) -> list[str]:
    import pyarrow

    from stillhouse.modules.ingestion.safe_parquet import open_parquet

    try:
        file = open_parquet(name, name)
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
    if gzipped != name.endswith(".gz"):  # by which Beam tells
        kind, remedy = ("", "add the ending .gz") if gzipped else ("not ", "remove the ending .gz")
        raise UserError(f"{name}: the file is {kind}compressed with gzip; rename it: {remedy}")
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

            from stillhouse.modules.ingestion.safe_parquet import open_parquet

            try:
                for _ in open_parquet(name, name).iter_batches():
                    pass
            except (pyarrow.ArrowInvalid, OSError) as error:
                raise UserError(f"{name}: corrupt Parquet file: {error}") from error
