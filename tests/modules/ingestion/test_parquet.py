import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.choice import decoded_bytes
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles, read
from stillhouse.modules.ingestion.on_disk import on_disk
from stillhouse.modules.ingestion.parquet import parquet_records
from stillhouse.modules.models.heads import HEADS

SPEC = {
    "x": tf.io.FixedLenFeature([2], tf.float32),
    "label": tf.io.FixedLenFeature([], tf.int64),
    "word": tf.io.FixedLenFeature([], tf.string, default_value=b"none"),
    "flag": tf.io.FixedLenFeature([], tf.int64),
}
PARSER = ExampleParser(SPEC, "label", HEADS["classification"])


@pytest.fixture
def path(tmp_path):
    table = pa.table(
        {
            "x": pa.array([[float(i), -i / 2] for i in range(9000)], pa.list_(pa.float64())),
            "label": pa.array([0, *range(1, 9000)], pa.int32()),
            "word": pa.array([None if i % 3 else f"w{i}" for i in range(9000)]),
            "flag": pa.array([bool(i % 2) for i in range(9000)]),
        }
    )
    pq.write_table(table, tmp_path / "examples.parquet")
    return str(tmp_path / "examples.parquet")


def test_rows_become_examples_zero_false_and_missing_values_too(path, tmp_path):
    cached = on_disk(ExampleFiles([path]), str(tmp_path / "cache"))
    features, labels, _ = PARSER(next(iter(read(cached.examples).batch(10_000))))
    numbers = np.arange(9000)
    np.testing.assert_array_equal(labels, numbers)
    np.testing.assert_array_equal(features["x"], np.stack([numbers, -numbers / 2], axis=1).astype(np.float32))
    np.testing.assert_array_equal(features["flag"], numbers % 2)
    assert features["word"].numpy().tolist() == [b"none" if i % 3 else f"w{i}".encode() for i in range(9000)]


def test_its_size_is_known_before_it_is_read(path):
    assert 9000 * 2 * 8 < decoded_bytes([path], PARSER) < 9000 * 100


def test_a_damaged_file_is_named(path):
    with open(path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=f"{path}: corrupt: "):
        list(parquet_records(path))


def test_a_type_that_examples_do_not_have_is_named(tmp_path):
    pq.write_table(pa.table({"when": pa.array([1], pa.timestamp("s"))}), tmp_path / "a")
    with pytest.raises(
        UserError, match=r"column 'when': found type timestamp.*; expected numbers, strings or lists of them"
    ):
        list(parquet_records(str(tmp_path / "a")))
