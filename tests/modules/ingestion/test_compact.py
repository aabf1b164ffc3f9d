"""Compact logits, against NumPy on random logits of many shapes and sizes."""

import numpy as np
import pytest
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.compact import check_top, pack_logits, unpack_logits

BATCH = 40


def random_logits(seed, teachers, outputs):
    """Rows of all sizes, from nearly equal logits to a spread of hundreds, with ties and rows of zeros."""
    random = np.random.default_rng(seed)
    sizes = 10 ** random.uniform(-3, 2, [BATCH, teachers, 1])
    logits = random.normal(size=[BATCH, teachers, outputs]) * sizes + random.normal(size=[BATCH, teachers, 1])
    logits[0], logits[1] = 0.0, logits[1, :, :1]
    return logits.astype(np.float32)


def rebuilt(logits, dtype, top=None):
    packed = pack_logits(logits, dtype, top)
    # As the input pipeline has it: a graph, and a number of examples that it does not know.
    batches = tf.data.Dataset.from_tensor_slices(packed).batch(BATCH - 1)
    unpacked = batches.map(lambda batch: unpack_logits(batch, list(logits.shape[1:]), dtype, top))
    assert unpacked.element_spec.shape.as_list()[1:] == list(logits.shape[1:])
    return np.concatenate(list(unpacked.as_numpy_iterator())), packed


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


SHAPES = [(seed, teachers, outputs) for seed in range(4) for teachers, outputs in ((1, 2), (3, 10), (2, 300))]


@pytest.mark.parametrize(("seed", "teachers", "outputs"), SHAPES)
def test_int8_rounds_to_a_127th_of_the_largest_logit_of_each_teacher_and_example(seed, teachers, outputs):
    logits = random_logits(seed, teachers, outputs)
    found, packed = rebuilt(logits, "int8")
    scale = (np.abs(logits).max(axis=-1, keepdims=True) / np.float32(127)).astype(np.float32)
    steps = np.divide(logits, scale, out=np.zeros_like(logits), where=scale > 0)
    np.testing.assert_allclose(found, np.rint(steps) * scale, rtol=1e-6)
    assert (np.abs(found - logits) <= 0.5001 * scale).all()
    assert {len(example) for example in packed} == {teachers * (4 + outputs)}


@pytest.mark.parametrize(("seed", "teachers", "outputs"), SHAPES)
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_largest_logits_keep_their_probability_and_the_others_share_the_rest(seed, teachers, outputs, share):
    logits = random_logits(seed, teachers, outputs)
    top = min(outputs - 1, max(1, int(share * outputs)))
    found, packed = rebuilt(logits, "float32", top)
    order = np.argsort(-logits, axis=-1, kind="stable")
    expected = softmax(logits)
    for row in np.ndindex(logits.shape[:2]):
        left_out = order[row][top:]
        np.testing.assert_array_equal(found[row][order[row][:top]], logits[row][order[row][:top]])
        expected[row][left_out] = expected[row][left_out].mean()
    np.testing.assert_allclose(softmax(found), expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=-1), logits.argmax(axis=-1))
    bytes_of_class = 1 if outputs <= 256 else 2
    assert {len(example) for example in packed} == {teachers * (bytes_of_class * top + 4 * (top + 1))}


def test_all_but_one_logit_are_all_of_them():
    logits = random_logits(5, 3, 7)
    np.testing.assert_allclose(rebuilt(logits, "float32", 6)[0], logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "values"), [("int8", 4 + 6), ("float16", 2 * 6)])
def test_the_largest_logits_are_rounded_like_all(dtype, values):
    logits = random_logits(6, 2, 12)
    exact, _ = rebuilt(logits, "float32", 5)
    found, packed = rebuilt(logits, dtype, 5)
    largest = np.abs(exact).max(axis=-1, keepdims=True)
    step = largest / 127 if dtype == "int8" else largest * 2.0**-10
    assert (np.abs(found - exact) <= 0.5001 * step).all()
    assert {len(example) for example in packed} == {2 * (5 + values)}


def test_classes_above_what_two_bytes_hold_are_found_again():
    logits = np.zeros([1, 1, 70_000], np.float32)
    logits[0, 0, [3, 65_535, 69_999]] = [20.0, 30.0, 40.0]
    found, packed = rebuilt(logits, "float16", 3)
    np.testing.assert_array_equal(found, logits)
    assert len(packed[0]) == 3 * 4 + 4 * 2


def test_as_many_logits_as_classes_are_refused():
    check_top(None, 3)
    check_top(2, 3)
    with pytest.raises(UserError, match=r"targets_top: found 3; expected less than 3 \(classes\); lower it"):
        check_top(3, 3)
