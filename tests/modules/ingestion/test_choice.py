import numpy as np
import pytest
import tensorflow as tf
from records import SPEC, example, write

from stillhouse.modules.ingestion import choice
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles
from stillhouse.modules.ingestion.in_memory import Columns
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Ingestion

FRAMING = 16  # bytes around a record
PARSER = ExampleParser(SPEC, "label", HEADS["classification"])


@pytest.mark.parametrize("compression", ["GZIP", ""])
def test_the_size_in_memory_is_estimated_from_the_first_records(tmp_path, compression, monkeypatch):
    monkeypatch.setattr(choice, "SAMPLE_BYTES", 1 << 14)
    random = np.random.default_rng(0)
    files = [write(tmp_path / str(k), random.integers(0, 10_000, 5000), compression=compression) for k in range(2)]
    empty = write(tmp_path / "0-empty", [], compression=compression)
    real = Columns.load(ExampleFiles(files), PARSER).bytes
    assert choice.decoded_bytes([empty, *files], PARSER) == pytest.approx(real, rel=0.2)


def test_a_damaged_file_does_not_stop_the_estimate(tmp_path):
    (tmp_path / "a").write_bytes(b"\x1f\x8b" + b"nonsense" * 10)
    assert choice.decoded_bytes([str(tmp_path / "a")], PARSER) == 0


def test_the_sample_has_the_records_that_are_whole_and_undamaged(tmp_path, monkeypatch):
    file = tmp_path / "a"
    write(file, range(10), compression="")
    content = bytearray(file.read_bytes())
    second = len(example(0)) + FRAMING
    content[second + FRAMING] ^= 0xFF
    file.write_bytes(content)
    undamaged = [example(number) for number in (0, *range(2, 10))]
    assert choice.sample(str(file)) == choice.Sample(undamaged, len(content))
    monkeypatch.setattr(choice, "SAMPLE_BYTES", len(content) - 1)
    assert choice.sample(str(file)) == choice.Sample(undamaged[:-1], len(content) - len(example(9)) - FRAMING)


@pytest.mark.parametrize(("decoded", "processes", "cache"), [(249, 1, "memory"), (251, 1, "disk"), (126, 2, "disk")])
def test_memory_is_taken_if_the_examples_fit_in_their_share_of_it(monkeypatch, decoded, processes, cache):
    monkeypatch.setattr(choice, "free_memory", lambda: 1000)
    found, why = choice.choose(Ingestion(memory_share=0.25), decoded, processes)
    assert found == cache
    assert f"cache: {cache}" in why


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "CGROUP", tmp_path)
    unlimited = choice.free_memory()
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert choice.free_memory() == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert choice.free_memory() == pytest.approx(unlimited, rel=0.5)


def test_a_resumed_training_keeps_the_decision(tmp_path):
    assert choice.remembered(None, "a") is None
    choice.remember(str(tmp_path / "new"), "a", "disk")
    assert choice.remembered(str(tmp_path / "new"), "a") == "disk"
    assert choice.remembered(str(tmp_path / "new"), "b") is None
    assert tf.io.gfile.listdir(str(tmp_path / "new")) == ["a.cache.json"]
