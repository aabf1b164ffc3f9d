import gzip
import os
import subprocess
import sys
from pathlib import Path

import blobs
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Data, Evaluation
from stillhouse.pipelines.local.data_check import check_data, check_evaluation_columns, find_fault


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "data" / "blobs.csv"
    blobs.write_csv(path, blobs.rows(20))
    return path


def data(path, **changes):
    return Data.model_validate({"path": str(path), "label": "tree"} | changes)


def test_good_data_passes(csv):
    check_data(data(csv.parent))
    find_fault(data(csv.parent))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "blobs.csv: the file is empty"),
        ("a,b,tree\n", "found only a header line; expected examples"),
        ("a,b,trees\n1,2,ash\n", "has no column 'tree'; it has: a, b, trees"),
        ("a,b,tree\n1,2,ash\n1,ash\n", "line 3: 2 values, but the header names 3 columns"),
        ("a,b,tree\n1,2,ash\n1,2,3,ash\n", "line 3: 4 values"),
        ("\ufeffa,b,tree\n1,2,ash\n", "blobs.csv: begins with a byte order mark; save the file as UTF-8 without one"),
        ("a,a,tree\n1,2,ash\n", "blobs.csv: the header names the column 'a' 2 times; rename or remove all but one"),
        ('"a","b","tree"\n1,2,ash\n', "line 1: expected column names without quotes"),
        ('"a,b",c,tree\n1,2,ash\n', "line 1: expected column names without quotes, commas"),
        ('a,"b\nc",tree\n1,2,ash\n', "line 1: expected column names without quotes, commas and line ends"),
        ("\na,b,tree\n1,2,ash\n", "line 1: expected column names .* and no blank line before them"),
        ("a,b,tree\r1,2,ash\r", "line 1: found a line end of CR alone; expected LF or CR LF"),
        ('a,b,tree\n1,2,ash\n1,2,"ash\n1,2,ash\n', "line 3: found a quote that nothing closes; close or double it"),
        ('a,b,tree\n1,5" ,ash\n1,2,ash\n1,6" ,ash\n', "line 2: found a quote within a value; expected quotes around"),
        ("a,b,tree\n1,2,a\0sh\n", "line 2: found a NUL byte; expected UTF-8 text"),
    ],
)
def test_the_fault_of_a_csv_is_named_with_its_place(csv, text, message):
    csv.write_text(text)
    with pytest.raises(UserError, match=message):
        find_fault(data(csv.parent))


def test_a_csv_that_is_not_utf8_is_named(csv):
    csv.write_bytes(b"a,b,tree\n1,2,\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        check_data(data(csv.parent))


def test_the_line_that_is_not_utf8_is_named(csv):
    lines = [b"a,b,tree", *[b"1,2,ash"] * 150, b"1,2,\xe4hre", *[b"1,2,ash"] * 150]
    csv.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match="blobs.csv, line 152: not UTF-8: found the byte 0xE4; save it as UTF-8"):
        find_fault(data(csv.parent))


def test_a_line_end_within_quotes_is_a_value(csv):
    csv.write_text('a,b,tree\n1,"2\n3",ash\r\n"4 ""x""",5,ash\n')
    find_fault(data(csv.parent))


def test_a_compressed_csv_is_named(csv):
    csv.rename(csv.with_name("blobs.csv.gz"))
    with pytest.raises(UserError, match="blobs.csv.gz: found a name in .gz, so a compressed CSV; decompress the file"):
        check_data(data(csv.parent))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(Path.mkdir, "a folder"), (os.mkfifo, "a special file"), (lambda path: path.symlink_to(path), "a broken link")],
)
def test_what_is_no_file_is_named(csv, make, kind):
    make(csv.with_name("more.csv"))
    with pytest.raises(UserError, match=f"data.path: .*/more.csv is {kind}; expected files alone; move it away"):
        check_data(data(csv.parent))


def test_a_file_that_may_not_be_read_is_named(csv, monkeypatch):
    csv.chmod(0)
    csv.parent.chmod(0o755)
    monkeypatch.chdir(csv.parent)  # the folders above belong to the user alone
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # who is no user
    try:
        with pytest.raises(UserError, match="blobs.csv: cannot be read: Permission denied"):
            check_data(data("."))
    finally:
        os.seteuid(user)


def test_csv_files_with_different_headers_are_refused(csv):
    csv.with_name("other.csv").write_text("b,a,tree\n1,2,ash\n")
    with pytest.raises(UserError, match="its header differs"):
        check_data(data(csv.parent))


@pytest.mark.parametrize("key", ["drift", "skew"])
def test_a_threshold_for_a_column_that_is_in_no_file_is_refused(csv, key):
    (csv.parent / "span-1").mkdir()
    csv.rename(csv.parent / "span-1" / csv.name)
    path = csv.parent / "span-{SPAN}"
    message = rf"data.{key}.thresholds: the data have no column 'aa' \(did you mean 'a'\?\)"
    with pytest.raises(UserError, match=message):
        check_data(data(path, transfer="more", **{key: {"thresholds": {"aa": 0.1}}}))
    check_data(data(path, transfer="more", **{key: {"thresholds": {"a": 0.1}}}))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="data.path: no folder"):
        check_data(data(tmp_path / "none"))


def test_spans_and_patterns_are_looked_into(csv, tmp_path):
    folder = tmp_path / "span-1" / "v2"
    folder.mkdir(parents=True)
    csv.rename(folder / "train.csv")
    (folder / "eval.csv").write_text((folder / "train.csv").read_text())
    path = str(tmp_path / "span-{SPAN}" / "v{VERSION}")
    check_data(data(path, splits={"train": "train*", "eval": "eval*"}))
    with pytest.raises(UserError, match="no files match"):
        check_data(data(path, splits={"train": "train*", "eval": "test*"}))


def tfrecords(path, count=500):
    example = tf.train.Example()
    example.features.feature["tree"].bytes_list.value.append(b"ash")
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for i in range(count):
            example.features.feature["a"].float_list.value[:] = [i * 1.37]
            writer.write(example.SerializeToString())


def test_truncated_gzip_is_named_with_the_record(tmp_path):
    path = tmp_path / "x.gz"
    tfrecords(path)
    find_fault(data(tmp_path, format="tfrecord"))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"x.gz: corrupt or truncated after record \d+"):
        find_fault(data(tmp_path, format="tfrecord"))


@pytest.mark.parametrize(
    ("name", "compression", "message"),
    [("x", "GZIP", "x: the file is compressed .* add the ending .gz"), ("x.gz", "", "is not compressed .* remove the")],
)
def test_a_tfrecord_file_whose_name_does_not_tell_its_compression_is_named(tmp_path, name, compression, message):
    with tf.io.TFRecordWriter(str(tmp_path / name), compression) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(UserError, match=message):
        check_data(data(tmp_path, format="tfrecord"))


def test_a_record_that_is_no_example_is_named(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
        writer.write(b"\xff\xff\xff")
    with pytest.raises(UserError, match="record 1 is not a tf.Example"):
        check_data(data(tmp_path, format="tfrecord"))


def test_parquet_faults_are_named(tmp_path):
    path = tmp_path / "x.parquet"
    with gzip.open(path, "wb") as file:
        file.write(b"not parquet")
    with pytest.raises(UserError, match="not a Parquet file"):
        check_data(data(tmp_path, format="parquet"))
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0]}), path)
    with pytest.raises(UserError, match="has no column 'tree'"):
        check_data(data(tmp_path, format="parquet"))


READ = """
import sys
from pathlib import Path
from stillhouse.modules.errors import UserError
try:
    {read}
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "read",
    [
        "from stillhouse.pipelines.local.data_check import _parquet_columns; _parquet_columns(sys.argv[1])",
        "from stillhouse.modules.ingestion.parquet import parquet_records; list(parquet_records(sys.argv[1]))",
        "from stillhouse.modules.ingestion.parquet import parquet_bytes; parquet_bytes(sys.argv[1])",
    ],
)
def test_what_a_parquet_file_would_run_is_not_run(tmp_path, read):
    path, harm = tmp_path / "x.parquet", tmp_path / "harm"
    type_ = {b"ARROW:extension:name": b"arrow.py_extension_type"}
    type_[b"ARROW:extension:metadata"] = b"cos\nsystem\n(S'touch %s'\ntR." % bytes(harm)
    schema = pyarrow.schema([pyarrow.field("a", pyarrow.int64(), metadata=type_)])
    pyarrow.parquet.write_table(pyarrow.table([[1]], schema), path)
    done = subprocess.run(
        [sys.executable, "-c", READ.format(read=read), str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}: a column has a Python extension type, which can run code when it is read")
    assert not harm.exists()


def test_a_folder_that_matches_but_is_no_span_is_named(tmp_path):
    for span in ("1", "old"):
        blobs.write_csv(tmp_path / f"span-{span}" / "x.csv", blobs.rows(3))
    with pytest.raises(UserError, match=r"data.path: .*span-old matches .*\{SPAN\} and \{VERSION\} are numbers"):
        check_data(data(tmp_path / "span-{SPAN}"))


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            {"slices": ["tere"]},
            r"evaluation.slices: the data have no column 'tere' \(did you mean 'tree'\?\); they have",
        ),
        ({"slices": ["a", ["tree", "shop"]]}, "evaluation.slices: the data have no column 'shop'; they have: a, b"),
        ({"query": "question"}, "evaluation.query: the data have no column 'question'"),
    ],
)
def test_columns_of_slices_and_query_have_to_be_in_the_data(csv, evaluation, message):
    with pytest.raises(UserError, match=message):
        check_evaluation_columns(check_data(data(csv.parent)), Evaluation.model_validate(evaluation))


def test_a_column_that_the_first_record_lacks_is_found_in_a_later_one(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "x.tfrecord")) as writer:
        for names in (["tree"], ["tree", "shop"]):
            example = tf.train.Example()
            for name in names:
                example.features.feature[name].int64_list.value.append(1)
            writer.write(example.SerializeToString())
    records = check_data(data(tmp_path, format="tfrecord"))
    check_evaluation_columns(records, Evaluation(slices=["shop"]))
    with pytest.raises(UserError, match="'shops'"):
        check_evaluation_columns(records, Evaluation(slices=["shops"]))
