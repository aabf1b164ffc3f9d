"""Bad data: the run is refused in one sentence that names the file or the column, or the data do no harm.

What the check before a run can see is tried with --dry-run; the rest with a run, which is stopped before its first
training, or before Transform, unless it is refused. What only an evaluation can see is run to its end.
"""

import gzip
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import blobs
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
import yaml
from campaign import assert_no_process_is_left, disturbed, small_project, versions
from disturbed import STOPPED

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

ROWS = blobs.rows(200)
HEADER = ",".join((*blobs.COLUMNS, "tree"))
LINES = [",".join(map(str, row)) for row in ROWS]
CSV = "\n".join([HEADER, *LINES]) + "\n"
CHECK, DATA, TRAINING, END = "check", "data", "training", "end"  # how far a case is run
SPARSE = "columns with missing or several values.*: a"
STOPS = {DATA: "running:Transform+0", TRAINING: "running:Teacher-1+0"}


@dataclass(frozen=True)
class Fault:
    """One fault of the data.

    `write` makes it in the folder of the data, where blobs.csv is good. `message` is a pattern in the sentence that
    refuses it; None: it has to be accepted. `until` says how far it is run.
    """

    name: str
    write: Callable[[Path], object]
    message: str | None
    until: str = CHECK
    data: dict = field(default_factory=dict)  # changes of the settings
    defect: str = ""  # of ours, because of which the case is known to fail


def file(content: str | bytes, name: str = "blobs.csv") -> Callable[[Path], object]:
    """Returns a writer of a file with that content."""
    content = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(content)


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Returns a writer that has `make` put something in the place of blobs.csv."""

    def write(folder: Path) -> None:
        (folder / "blobs.csv").unlink()
        make(folder / "blobs.csv")

    return write


def beside(make: Callable[[Path], object], name: str = "more.csv") -> Callable[[Path], object]:
    """Returns a writer that has `make` put something beside blobs.csv."""
    return lambda folder: make(folder / name)


def with_line(line: str, at: int = 50) -> str:
    """Returns the CSV with one more line."""
    return "\n".join([HEADER, *LINES[:at], line, *LINES[at:]]) + "\n"


def with_column(name: str, value: str = "1") -> str:
    """Returns the CSV with one more column before the others."""
    return "\n".join([f"{name},{HEADER}", *(f"{value},{line}" for line in LINES)]) + "\n"


def with_labels(label: Callable[[int], str]) -> str:
    """Returns the CSV with other labels: `label` of the row's number."""
    return "\n".join([HEADER, *(line.rpartition(",")[0] + f",{label(i)}" for i, line in enumerate(LINES))]) + "\n"


def with_value(value: str, every: int = 10) -> str:
    """Returns the CSV with `value` in column a of every so many rows."""
    lines = [f"{value},{line.partition(',')[2]}" if i % every == 0 else line for i, line in enumerate(LINES)]
    return "\n".join([HEADER, *lines]) + "\n"


def columns() -> dict[str, list]:
    """Returns the examples as {column: values}."""
    return {name: [row[i] for row in ROWS] for i, name in enumerate((*blobs.COLUMNS, "tree"))}


def parquet(change: Callable[[dict], dict] = dict, cut: int | None = None, name: str = "blobs.parquet"):
    """Returns a writer of a Parquet file of the changed columns, cut to so many bytes; blobs.csv is removed."""

    def write(folder: Path) -> None:
        (folder / "blobs.csv").unlink(missing_ok=True)
        path = folder / name
        pyarrow.parquet.write_table(pyarrow.table(change(columns())), path)
        if cut is not None:
            os.truncate(path, cut)

    return write


def records(change: Callable[[int, dict], dict] = lambda _, row: row, cut: int | None = None, zipped: bool = True):
    """Returns a writer of a TFRecord file of the rows after `change`, cut to so many bytes; blobs.csv is removed."""

    def write(folder: Path) -> None:
        (folder / "blobs.csv").unlink()
        path = folder / ("blobs.tfrecord.gz" if zipped else "blobs.tfrecord")
        with tf.io.TFRecordWriter(str(path), "GZIP" if zipped else "") as writer:
            for i, values in enumerate(ROWS):
                example = tf.train.Example()
                row = dict(zip((*blobs.COLUMNS, "tree"), values, strict=True))
                for column, value in change(i, row).items():
                    feature = example.features.feature[column]
                    if isinstance(value, str):
                        feature.bytes_list.value.append(value.encode())
                    elif isinstance(value, int):
                        feature.int64_list.value.append(value)
                    elif isinstance(value, list):
                        feature.float_list.value.extend(value)
                    else:
                        feature.float_list.value.append(value)
                writer.write(example.SerializeToString())
        if cut is not None:
            os.truncate(path, cut)

    return write


def flipped(folder: Path) -> None:
    """Writes a TFRecord file with one bit changed in its middle, which its checksums notice."""
    records(zipped=False)(folder)
    path = folder / "blobs.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)


def overlapping(folder: Path) -> None:
    (folder / "train.csv").write_text(CSV)


TFRECORD, PARQUET = {"format": "tfrecord"}, {"format": "parquet"}
BY_NAME = {"splits": {"train": "blobs*", "eval": "eval*"}}

FAULTS = [
    # Files
    Fault("empty file", file(""), r"blobs\.csv: the file is empty"),
    Fault("blank lines alone", file("\n\n\n"), r"blobs\.csv: the file is empty"),
    Fault("header alone", file(HEADER + "\n"), r"blobs\.csv: found only a header line"),
    Fault("empty file among good ones", file("", "more.csv"), r"more\.csv: the file is empty"),
    Fault("no files", instead(lambda path: None), r"data\.path: no files match data/\*"),
    Fault("no folder", lambda folder: None, r"data\.path: no folder dates", data={"path": "dates"}),
    Fault("file in the folder's place", lambda folder: None, r"data\.path: no", data={"path": "data/blobs.csv"}),
    Fault("folder in the file's place", instead(Path.mkdir), r"data\.path: data/blobs\.csv is a folder"),
    Fault("folder among good files", beside(Path.mkdir), r"data/more\.csv is a folder"),
    Fault("dangling link", instead(lambda path: path.symlink_to("nowhere")), r"data/blobs\.csv is a broken link"),
    Fault(
        "dangling link among good files",
        beside(lambda path: path.symlink_to("nowhere")),
        r"data/more\.csv is a broken link",
    ),
    Fault("link to itself", instead(lambda path: path.symlink_to(path.name)), r"data/blobs\.csv is a broken link"),
    Fault(
        "link to itself among good files",
        beside(lambda path: path.symlink_to(path)),
        r"data/more\.csv is a broken link",
    ),
    Fault("named pipe among good files", beside(os.mkfifo), r"data/more\.csv is a special file"),
    Fault("unreadable file", lambda folder: (folder / "blobs.csv").chmod(0), r"blobs\.csv"),
    Fault("split without files", lambda folder: None, r"data\.path: no files match data/eval\*", data=BY_NAME),
    Fault("split of a header alone", file(HEADER + "\n", "eval.csv"), r"eval\.csv: found only a header", data=BY_NAME),
    Fault(
        "one example, eval split empty",
        file(f"{HEADER}\n{LINES[0]}\n"),
        r"the (eval|train) split has no examples",
        DATA,
    ),
    # Bytes
    Fault("UTF-16", file(CSV.encode("utf-16")), r"blobs\.csv, line 1: not UTF-8"),
    Fault("gzip named .csv", file(gzip.compress(CSV.encode(), mtime=0)), r"blobs\.csv, line 1: not UTF-8"),
    Fault("random bytes", file(random.Random(1).randbytes(5_000)), r"blobs\.csv"),
    Fault(
        "text named .csv.gz",
        instead(lambda path: path.with_suffix(".csv.gz").write_text(CSV)),
        r"blobs\.csv\.gz: found a name in \.gz",
    ),
    Fault("Latin-1 in the header", file(with_column("höhe").encode("latin-1")), r"blobs\.csv, line \d+: not UTF-8"),
    Fault(
        "Latin-1 in a value",
        file(with_labels(lambda i: "ä").encode("latin-1")),
        r"blobs\.csv, line \d+: not UTF-8",
        TRAINING,
    ),
    Fault(
        "Latin-1 after 100 rows",
        file(with_line("1,2,3,4,ähre", at=150).encode("latin-1")),
        r"blobs\.csv, line \d+: not UTF-8",
        TRAINING,
    ),
    Fault(
        "half a surrogate pair",
        file(with_line("1,2,3,4,\ud800").encode("utf-8", "surrogatepass")),
        r"blobs\.csv, line \d+: not UTF-8",
        TRAINING,
    ),
    Fault("byte order mark", file("\ufeff" + CSV), r"blobs\.csv: begins with a byte order mark"),
    Fault("NUL in the header", file(CSV.replace("a,", "a\0,", 1)), r"blobs\.csv"),
    Fault("NUL in a value", file(with_line("1,2,3,4,as\0h")), r"blobs\.csv, line", TRAINING),
    Fault("CR line ends", file(CSV.replace("\n", "\r")), r"blobs\.csv, line 1: found a line end of CR"),
    Fault("CR LF line ends", file(CSV.replace("\n", "\r\n")), None, DATA),
    Fault("no line end at the end", file(CSV.rstrip("\n")), None, DATA),
    # Rows of CSV
    Fault("semicolons", file(CSV.replace(",", ";")), r"blobs\.csv has no column 'tree'"),
    Fault("tabs", file(CSV.replace(",", "\t")), r"blobs\.csv has no column 'tree'"),
    Fault("row too short", file(with_line("1,2,ash")), r"blobs\.csv, line 52: 3 values", TRAINING),
    Fault("row too long", file(with_line("1,2,3,4,5,ash")), r"blobs\.csv, line 52: 6 values", TRAINING),
    Fault("quote without end", file(with_line('1,2,3,4,"ash')), r"blobs\.csv, line 52: found a quote", TRAINING),
    Fault("line end in quotes", file(with_line('1,2,3,4,"a\nsh"').replace("ash", '"a\nsh"')), None, DATA),
    Fault(
        "quotes without ends in two rows",
        file(with_line('1,2,3,4,5" ash', 9).replace("birch", 'birch"', 1)),
        r"blobs\.csv, line \d+: found a quote within",
        TRAINING,
    ),
    Fault("cell of 200,000 characters", file(with_line("1,2,3,4," + "x" * 200_000)), r"blobs\.csv, line", TRAINING),
    Fault("blank line within", file(with_line("")), None, DATA),
    Fault("comment line", file("# measured in May\n" + CSV), r"blobs\.csv has no column 'tree'"),
    # Columns
    Fault("no label column", file(CSV.replace("tree", "shrub", 1)), "data.label: .* has no column 'tree'; it has: a, "),
    Fault("label column in capitals", file(CSV.replace("tree", "Tree", 1)), "data.label: .* has no column 'tree'"),
    Fault("blanks around names", file(CSV.replace(HEADER, HEADER.replace(",", " , "))), "has no column 'tree'|' *b *'"),
    Fault(
        "two columns of one name",
        file(CSV.replace("a,b", "a,a", 1)),
        r"blobs\.csv: the header names the column 'a' 2 times",
    ),
    Fault(
        "two label columns", file(with_column("tree", "ash")), r"blobs\.csv: the header names the column 'tree' 2 times"
    ),
    Fault("column without a name", file(with_column("")), None, DATA),
    Fault("line end in a name", file(with_column('"x\ny"')), r"blobs\.csv, line 1: expected column names"),
    Fault("quote in a name", file(with_column('"x""y"')), r"blobs\.csv, line 1: expected column names"),
    Fault(
        "all names in quotes",
        file(CSV.replace(HEADER, '"a","b","c","d","tree"')),
        r"blobs\.csv, line 1: expected column names",
    ),
    Fault("blank line before the header", file("\n" + CSV), r"blobs\.csv, line 1: expected column names"),
    Fault("comma in a name", file(with_column('"x,y"')), r"blobs\.csv, line 1: expected column names"),
    Fault("blank in a name", file(with_column("x y")), None, DATA),
    Fault("escape sequence in a name", file(with_column("\x1b[31mx")), None),
    Fault("10,000 columns", file(with_column(",".join(f"c{i}" for i in range(10_000)), ",".join("1" * 10_000))), None),
    Fault("another header in a second file", file(CSV.replace("a,", "z,", 1), "more.csv"), r"more\.csv: its header"),
    Fault("another order in a second file", file(CSV.replace("a,b", "b,a", 1), "more.csv"), r"more\.csv: its header"),
    # Values
    Fault("label never there", file(with_labels(lambda i: "")), "'tree'", END),
    Fault("label missing in some rows", file(with_labels(lambda i: "" if i % 5 else ROWS[i][-1])), "'tree'", END),
    Fault("labels of one class", file(with_labels(lambda i: "ash")), "the label 'tree' than ash;", END),
    Fault("labels of 5,000 classes", file(with_labels(lambda i: f"tree{i % 5_000}")), "'tree' must be in 0..2", END),
    Fault("column without a value", file(with_value("", every=1)), SPARSE, TRAINING),
    Fault("missing values", file(with_value("")), SPARSE, TRAINING),
    Fault("strings among numbers", file(with_value("unknown")), "columns with strings: a", TRAINING),
    Fault(
        "strings in a second file", file(with_value("tall", every=1), "more.csv"), "columns with strings: a", TRAINING
    ),
    Fault("decimal commas", file(with_value('"1,5"')), "columns with strings: a", TRAINING),
    Fault("NaN", file(with_value("nan")), "Teacher-1: .*NaN", END),
    Fault("infinity", file(with_value("inf")), "Teacher-1: .*NaN", END),
    Fault("number beyond float32", file(with_value("1e300")), "Teacher-1: .*NaN", END),
    Fault("integer beyond 64 bits", file(with_value("9" * 30, every=1)), "columns with strings: a", END),
    # TFRecord
    Fault(
        "TFRecord: empty", instead(lambda path: path.write_bytes(b"")), r"blobs\.csv: the file has no", data=TFRECORD
    ),
    Fault("TFRecord: text", lambda folder: None, r"blobs\.csv: corrupt or truncated", data=TFRECORD),
    Fault(
        "TFRecord: gzip without the ending .gz",
        lambda folder: (records()(folder), (folder / "blobs.tfrecord.gz").rename(folder / "blobs.tfrecord")),
        r"blobs\.tfrecord: the file is compressed with gzip; rename it",
        data=TFRECORD,
    ),
    Fault("TFRecord: gzip cut", records(cut=3_000), r"blobs\.tfrecord\.gz: corrupt or truncated", TRAINING, TFRECORD),
    Fault("TFRecord: cut", records(cut=9_000, zipped=False), r"blobs\.tfrecord: corrupt", TRAINING, TFRECORD),
    Fault("TFRecord: one bit changed", flipped, r"blobs\.tfrecord: corrupt", TRAINING, TFRECORD),
    Fault(
        "TFRecord: no label",
        records(lambda i, row: {name: value for name, value in row.items() if name != "tree"}),
        "has no column 'tree'",
        data=TFRECORD,
    ),
    Fault(
        "TFRecord: a column of two types",
        records(lambda i, row: row | {"a": "tall" if i == 150 else row["a"]}),
        "'a'",
        TRAINING,
        TFRECORD,
    ),
    Fault(
        "TFRecord: two values in a column of one",
        records(lambda i, row: row | {"a": [1.0, 2.0] if i == 150 else row["a"]}),
        SPARSE,
        TRAINING,
        TFRECORD,
    ),
    # Parquet
    Fault("Parquet: text", lambda folder: None, r"blobs\.csv: not a Parquet file", data=PARQUET),
    Fault("Parquet: cut", parquet(cut=1_000), r"blobs\.parquet: not a Parquet file", data=PARQUET),
    Fault(
        "Parquet: no rows",
        parquet(lambda table: {name: values[:0] for name, values in table.items()}),
        r"blobs\.parquet: the file has no rows",
        data=PARQUET,
    ),
    Fault(
        "Parquet: nested column",
        parquet(lambda table: table | {"payload": [{"x": [1], "y": None} for _ in ROWS]}),
        "payload",
        TRAINING,
        PARQUET,
    ),
    Fault(
        "Parquet: timestamps",
        parquet(lambda table: table | {"seen": pyarrow.array(range(len(ROWS)), pyarrow.timestamp("s"))}),
        "seen",
        TRAINING,
        PARQUET,
    ),
    Fault(
        "Parquet: unsigned 64-bit integers",
        parquet(lambda table: table | {"id": pyarrow.array([2**64 - 1] * len(ROWS), pyarrow.uint64())}),
        "'id'",
        TRAINING,
        PARQUET,
    ),
    Fault(
        "Parquet: another type in a second file",
        lambda folder: (
            parquet()(folder),
            parquet(lambda table: table | {"a": ["tall"] * len(ROWS)}, name="more.parquet")(folder),
        ),
        "'a'",
        TRAINING,
        PARQUET,
    ),
]
assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60


def _case(fault: Fault):
    marks = [pytest.mark.xfail(strict=True, reason=fault.defect)] if fault.defect else []
    return pytest.param(fault, id=fault.name.replace(" ", "_"), marks=marks)


@pytest.mark.parametrize("fault", map(_case, FAULTS))
def test_bad_data_are_refused_in_a_sentence_or_do_no_harm(fault, tmp_path, record_property):
    if fault.name == "unreadable file" and os.getuid() == 0:
        pytest.skip("NOT RUN: root reads every file")
    record_property("fault", "bad data")
    project = small_project(tmp_path)
    (tmp_path / "data" / "blobs.csv").write_text(CSV)
    fault.write(tmp_path / "data")
    settings = yaml.safe_load((tmp_path / "blobs.yaml").read_text())
    settings["data"] |= fault.data
    (tmp_path / "blobs.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--dry-run"] if fault.until == CHECK else []
    done = disturbed(project, STOPS.get(fault.until, "none:"), "STOP", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    if fault.message is None:
        assert done.returncode == (STOPPED if fault.until in STOPS else 0), done.stderr
    else:
        assert done.returncode == 2, f"{done.returncode}: {done.stderr}{done.stdout}"
        message = done.stderr[done.stderr.index("error: ") :]
        assert re.search(fault.message, message), message
        assert len(message) < 2_000
        assert versions(project) == []
    assert message_is_printable(done.stderr + done.stdout)
    assert_no_process_is_left(project)


def message_is_printable(text: str) -> bool:
    """Returns whether a text has no control characters but line ends."""
    return all(character.isprintable() or character in "\n\t" for character in text)
