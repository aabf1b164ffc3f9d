"""Damaged records and files."""

import gzip
import struct

import pytest
from records import SPEC, example, write

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.corruption import explain_misfit, without_damage
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import read
from stillhouse.modules.ingestion.framing import BrokenFileError, records_of
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Ingestion


def damage(path, record, where="record"):
    """Flips a byte of the record with this number, counted from 1, or of its length."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    at = 0
    for _ in range(record - 1):
        at += 16 + struct.unpack_from("<Q", content, at)[0]
    content[at + (12 if where == "record" else 0)] ^= 0xFF
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "a.gz", range(10))
    return tmp_path / "a.gz"


def test_records_are_those_that_tensorflow_reads(path):
    assert list(records_of(str(path))) == list(read([str(path)]).as_numpy_iterator())


def test_a_damaged_record_stops_with_its_file_and_number(path):
    damage(path, 4)
    damage(path, 9)
    message = rf"{path}: record 4 is corrupt .*, and 1 more; .*max_corrupt_records: 2"
    with pytest.raises(UserError, match=message):
        without_damage({"train": [str(path)]}, Ingestion(max_corrupt_records=1))


def test_so_many_damaged_records_as_allowed_are_left_out_and_no_others(path, tmp_path):
    damage(path, 4)
    damage(path, 10)
    write(tmp_path / "b.gz", range(3))
    options = Ingestion(max_corrupt_records=2, cache_folder=str(tmp_path / "cache"))
    files = without_damage({"train": [str(path), str(tmp_path / "b.gz")]}, options)["train"]
    assert list(read(files[:1]).as_numpy_iterator()) == [example(i) for i in range(10) if i not in (3, 9)]
    assert files[1] == str(tmp_path / "b.gz")


def test_a_damaged_length_is_said_to_lose_the_rest(path):
    damage(path, 6, where="length")
    with pytest.raises(UserError, match=rf"{path}: record 6: its length is corrupt; the rest of the file is lost"):
        without_damage({"train": [str(path)]}, Ingestion(max_corrupt_records=100))


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_ends_too_early_is_said_to_lose_the_rest(tmp_path, compressed):
    path = tmp_path / "cut"
    write(path, range(1000), compression="GZIP" if compressed else "")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BrokenFileError):
        list(records_of(str(path)))
    with pytest.raises(UserError, match="the rest of the file is lost"):
        without_damage({"train": [str(path)]}, Ingestion(max_corrupt_records=100))


def test_a_record_that_does_not_fit_the_schema_is_named(tmp_path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "a"), "") as writer:
        writer.write(example(1))
        writer.write(example(2, x=[1.0, 2.0, 3.0]))
    parser = ExampleParser(SPEC, "label", HEADS["classification"])
    error = explain_misfit([str(tmp_path / "a")], parser.columns, ValueError("?"))
    assert str(error).startswith(f"{tmp_path / 'a'}: record 2 violates the transformed schema: ")
    assert "x" in str(error)
