"""What a training does with its input, whatever is wrong with it; the files are copies of a finished run's."""

import gzip
import logging
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from artifacts import Artifacts, training_config

from stillhouse.modules.errors import UserError
from stillhouse.modules.training.train import train


@pytest.fixture
def run(trained, monkeypatch):
    monkeypatch.syspath_prepend(trained.folder)
    return Artifacts(trained.folder / "runs" / "blobs")


@pytest.fixture
def arguments(run, tmp_path):
    """Arguments of run_fn whose train files may be changed."""
    shutil.copytree(run.examples / "Split-train", tmp_path / "train")
    found = run.fn_args(tmp_path)
    found.train_files = [str(tmp_path / "train" / "*")]
    return found


def files(arguments) -> list[Path]:
    return sorted(Path(arguments.train_files[0]).parent.iterdir())


def records(path: Path) -> list[bytes]:
    return list(tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator())


def rewrite(path: Path, written: list[bytes], compression="GZIP") -> None:
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in written:
            writer.write(record)


def damage(path: Path) -> None:
    """Flips a byte of the second record."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[16 + struct.unpack_from("<Q", content)[0] + 14] ^= 0xFF
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_a_damaged_record_is_named_or_left_out(run, arguments, tmp_path, cache, caplog):
    path = files(arguments)[0]
    count = len(records(path))
    damage(path)
    ingestion = {"cache": cache, "cache_folder": str(tmp_path / "cache")}
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}: record 2 is corrupt .*max_corrupt_records: 1"):
        train(training_config(run, False, ingestion=ingestion), arguments)
    with caplog.at_level(logging.INFO, logger="stillhouse"):
        _, card = train(training_config(run, False, ingestion=ingestion | {"max_corrupt_records": 1}), arguments)
    assert card["train_examples"] == count + sum(len(records(other)) for other in files(arguments)[1:]) - 1
    assert f"{path}: skipping 1 corrupt records: 2" in caplog.text


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_record_that_does_not_fit_the_schema_is_named(run, arguments, cache):
    path = files(arguments)[0]
    odd = tf.train.Example()
    odd.features.feature["features"].float_list.value.extend([1.0])
    rewrite(path, [*records(path)[:3], odd.SerializeToString()])
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}: record 4 violates .*features"):
        train(training_config(run, False, ingestion={"cache": cache}), arguments)


def test_parquet_and_plain_files_train_as_the_gzipped_ones_do(run, arguments, tmp_path):
    ingestion = {"cache": "memory", "cache_folder": str(tmp_path / "cache")}
    expected, _ = train(training_config(run, False, ingestion=ingestion), arguments)
    (path,) = files(arguments)
    written = records(path)
    rewrite(path, written, compression="")
    plain, _ = train(training_config(run, False, ingestion=ingestion), arguments)
    examples = [tf.train.Example.FromString(record).features.feature for record in written]
    columns = {
        "features": pa.array([list(example["features"].float_list.value) for example in examples]),
        "tree": pa.array([example["tree"].int64_list.value[0] for example in examples]),
    }
    pq.write_table(pa.table(columns), path)
    parquet, card = train(training_config(run, False, ingestion=ingestion), arguments)
    assert card["cache"] == "memory"
    for ours in (plain, parquet):
        for weights, wanted in zip(ours.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(weights, wanted, rtol=1e-6, atol=1e-7)


def test_a_model_says_how_long_it_waited_and_what_auto_chose(run, arguments, caplog):
    with caplog.at_level(logging.INFO, logger="stillhouse"):
        _, card = train(training_config(run, False), arguments)
    assert card["cache"] == "memory"
    assert 0 <= card["input_share"] <= 1
    assert re.search(r"Student: cache: memory \([\d.]+ MB decoded, ingestion.memory_share allows", caplog.text)
    assert re.search(r"Student: \d+% of the step time is waiting for input", caplog.text)


def test_input_workers_feed_a_training(run, arguments, tmp_path):
    ingestion = {"service_workers": 2, "deterministic": False, "cache_folder": str(tmp_path / "cache")}
    _, card = train(training_config(run, False, ingestion=ingestion, epochs=12), arguments)
    assert card["cache"] == "disk"
    assert card["history"]["accuracy"][-1] > 0.9
