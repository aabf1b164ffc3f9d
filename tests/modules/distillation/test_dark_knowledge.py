import numpy as np
import pytest
import tensorflow as tf
from numpy_reference import softmax
from records import SPEC, write

from stillhouse.components.dark_knowledge.figure import similarity_figure
from stillhouse.modules.distillation.dark_knowledge import find_dark_knowledge
from stillhouse.modules.ingestion.files import ExampleFiles
from stillhouse.modules.ingestion.soft_targets import SoftTargetsCard

LABELS = [0, 1, 2, 1]
LOGITS = np.array([[5, 1, 0], [0, 3, 2.5], [0, 1, 4], [9, 1, 0]], np.float32)  # the last one is wrong


@pytest.fixture
def found(tmp_path):
    write(tmp_path / "examples.gz", LABELS)
    with tf.io.TFRecordWriter(str(tmp_path / "examples.gz.block-00000-of-00001.gz"), "GZIP") as writer:
        for row in LOGITS:
            example = tf.train.Example()
            example.features.feature["soft_target/example"].int64_list.value.append(0)
            example.features.feature["soft_target/logits"].float_list.value.extend(row)
            writer.write(example.SerializeToString())
    files = ExampleFiles([str(tmp_path / "examples.gz")], str(tmp_path))
    card = SoftTargetsCard(["Teacher-1"], "float32", {"logits": [1, 3]}, 4, {})
    return find_dark_knowledge(files, card, SPEC, "label", [4.0, 1.0], [1.0], "arithmetic", ["a", "b<", "c"])


def test_similarity_is_the_mean_soft_target_per_true_class(found):
    assert [at["temperature"] for at in found["temperatures"]] == [1.0, 4.0]
    assert found["examples_per_class"] == [1, 2, 1]
    for at in found["temperatures"]:
        p = softmax(LOGITS / at["temperature"])
        expected = [p[0], (p[1] + p[3]) / 2, p[2]]
        np.testing.assert_allclose(at["mean_soft_targets"], expected, atol=1e-6)
        entropy = -(p * np.log(p)).sum(-1)
        assert at["entropy"]["mean"] == pytest.approx(entropy.mean(), rel=1e-5)
        assert at["entropy"]["p50"] == pytest.approx(np.median(entropy), rel=1e-5)


def test_telling_examples_are_right_and_least_sure_first(found):
    assert [telling["example"] for telling in found["telling"]] == [1, 2, 0]
    first = found["telling"][0]
    assert first["class"] == "b<"
    assert list(first["probabilities"]) == ["b<", "c", "a"]
    assert first["features"] == {"x": [1.0, -1.0]}


def test_the_figure_has_class_names_temperature_and_units(found):
    svg = similarity_figure(found["classes"], found["temperatures"][1])
    assert "T = 4" in svg
    assert "nats" in svg
    assert "b&lt;" in svg
    assert svg == similarity_figure(found["classes"], found["temperatures"][1])
