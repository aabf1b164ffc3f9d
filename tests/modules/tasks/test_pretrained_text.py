"""The task of a pre-trained sentence encoder and a bag of words, with a tiny encoder."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tiny_encoder import TOKENS, WIDTH, write_encoder

from stillhouse.modules.errors import UserError
from stillhouse.modules.models.autograph import needs_autograph
from stillhouse.modules.models.task import build_model
from stillhouse.modules.tasks.pretrained_text import build_student, build_teacher, preprocessing_fn
from stillhouse.modules.text.hashed_bag import BagOfIds
from stillhouse.modules.text.sentence_encoder import sentence_encoder

LENGTH, CLASSES = 8, 3
TASK = "stillhouse.modules.tasks.pretrained_text"


@pytest.fixture
def encoder(tmp_path):
    return write_encoder(tmp_path / "encoder")


def test_columns_are_joined_to_one_text_and_the_vocabulary_travels_with_the_graph(encoder, tmp_path):
    rows = [{"title": "The", "body": "sums.", "kind": "a"}, {"title": "naïve", "body": "", "kind": "a"}]
    spec = {name: tf.io.FixedLenFeature([], tf.string) for name in rows[0]}
    config = {
        "label": "kind",
        "preprocessing": {"text": ["title", "body"], "length": LENGTH, "encoder": str(encoder)},
    }
    with tft_beam.Context(temp_dir=str(tmp_path / "beam")):
        (data, _), function = (
            rows,
            tft.DatasetMetadata.from_feature_spec(spec),
        ) | tft_beam.AnalyzeAndTransformDataset(lambda inputs: preprocessing_fn(inputs, config))
        function | tft_beam.WriteTransformFn(str(tmp_path / "graph"))
    wanted = [["[CLS]", "the", "sum", "##s", ".", "[SEP]"], ["[CLS]", "nai", "##ve", "[SEP]"]]
    for row, tokens in zip(data, wanted, strict=True):
        ids = [TOKENS.index(token) for token in tokens]
        assert row["tokens"].tolist() == ids + [0] * (LENGTH - len(ids))
        assert row["kind"] == 0
    (encoder / "vocab.txt").unlink()
    layer = tft.TFTransformOutput(str(tmp_path / "graph")).transform_features_layer()
    served = layer({name: tf.constant([row[name] for row in rows]) for name in ("title", "body")})
    np.testing.assert_array_equal(served["tokens"], [row["tokens"] for row in data])


def test_missing_columns_are_named():
    inputs = {"body": tf.constant(["x"]), "kind": tf.constant(["a"])}
    with pytest.raises(UserError, match=r"preprocessing\.text: found title; expected columns of: body, kind"):
        preprocessing_fn(inputs, {"label": "kind", "preprocessing": {"text": ["title"], "length": LENGTH}})


def test_the_teacher_is_a_dense_layer_over_the_encoder_and_trains_that_layer_alone(encoder):
    teacher = build_teacher(LENGTH, CLASSES, str(encoder))
    ids = tf.constant([[2, 5, 6, 3, 0, 0, 0, 0], [2, 9, 3, 0, 0, 0, 0, 0]], tf.int64)
    chance = np.random.RandomState(1)
    kernel, bias = chance.normal(size=(WIDTH, CLASSES)), chance.normal(size=CLASSES)
    teacher.get_layer("classes").set_weights([kernel, bias])
    embedding = sentence_encoder(encoder, LENGTH)(ids).numpy()
    np.testing.assert_allclose(teacher(ids), embedding * np.sqrt(WIDTH) @ kernel + bias, atol=1e-5)
    assert [variable.name for variable in teacher.trainable_variables] == ["classes/kernel:0", "classes/bias:0"]
    assert not needs_autograph(teacher)


def test_the_student_is_a_network_over_the_bag_of_hashed_tokens():
    buckets, width = 5, 4
    student = build_student(LENGTH, CLASSES, buckets, width)
    ids = np.array([[2, 7, 7, 12, 3, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0], [0] * 8])
    counts = np.zeros([3, buckets])
    for row, tokens in enumerate(ids):
        for token in tokens[tokens > 0]:
            counts[row, token % buckets] = 1
    student.set_weights([np.random.RandomState(1).normal(size=values.shape) for values in student.get_weights()])
    table, bias, kernel, class_bias = student.get_weights()
    norms = np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
    hidden = np.maximum(counts / norms @ table + bias, 0)
    np.testing.assert_allclose(student(tf.constant(ids)), hidden @ kernel + class_bias, atol=1e-5)
    assert student.count_params() == buckets * width + width + width * CLASSES + CLASSES
    assert not needs_autograph(student)


def test_the_student_learns_from_every_token_and_from_none_of_the_padding():
    student = build_student(LENGTH, CLASSES, 7, 4)
    student.set_weights([np.ones_like(values) for values in student.get_weights()])
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(student(tf.constant([[2, 3, 0, 0, 0, 0, 0, 0]])) ** 2)
    gradient = tf.convert_to_tensor(tape.gradient(output, student.trainable_variables[0])).numpy()
    assert (np.abs(gradient).sum(axis=1) > 0).tolist() == [False, False, True, True, False, False, False]


def test_in_training_the_student_leaves_out_tokens_and_keeps_the_norm():
    layer = BagOfIds(6, 6, dropout=0.5)
    ids = tf.constant([[1, 2, 2, 4, 5, 6, 0, 0]] * 200)
    layer(ids)
    layer.set_weights([np.eye(6), np.zeros(6)])
    bags = layer(ids, training=True).numpy()
    np.testing.assert_allclose(np.linalg.norm(bags, axis=1), (bags > 0).any(axis=1), rtol=1e-5)
    shares = (bags > 0).mean(axis=0)
    assert shares[2] == 0
    assert shares[[0, 1, 3, 4, 5]] == pytest.approx(0.5, abs=0.15)
    np.testing.assert_allclose(layer(ids)[0], np.array([1, 1, 0, 1, 1, 1]) / np.sqrt(5), rtol=1e-5)


def test_a_missing_encoder_stops_the_check_of_the_settings_with_one_sentence(tmp_path):
    missing = tmp_path / "nothing"
    with pytest.raises(UserError, match=f"^encoder: found no package or folder {re.escape(str(missing))}; install"):
        build_model(TASK, "build_teacher", {"length": LENGTH, "classes": CLASSES, "encoder": str(missing)})
