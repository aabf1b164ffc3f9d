import numpy as np
import pytest
import tensorflow as tf

from modules.errors import UserError
from modules.ingestion import label_spec, scan_labels, training_dataset

SPEC = {"x": tf.io.FixedLenFeature([2], tf.float32), "label": tf.io.FixedLenFeature([], tf.int64)}


@pytest.fixture
def files(tmp_path):
    """Three shards of 10 examples, the label of example i is i."""
    for shard in range(3):
        with tf.io.TFRecordWriter(str(tmp_path / f"examples-{shard}.gz"), "GZIP") as writer:
            for i in range(10 * shard, 10 * shard + 10):
                features = {
                    "x": tf.train.Feature(float_list=tf.train.FloatList(value=[i, -i])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[i])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return [str(tmp_path / "*")]


def epochs(files, seed, count=2, batch=7):
    dataset = training_dataset(files, SPEC, "label", batch, seed)
    batches = list(dataset.take(count * 5).as_numpy_iterator())
    for features, labels in batches:
        np.testing.assert_array_equal(features["x"], np.stack([labels, -labels], axis=1))
    return [np.concatenate([labels for _, labels in batches[5 * e : 5 * e + 5]]) for e in range(count)]


def test_every_epoch_has_every_example_once_in_an_order_of_its_own(files):
    first, second = epochs(files, seed=1)
    assert sorted(first) == sorted(second) == list(range(30))
    assert list(first) != list(second)


def test_the_order_is_a_function_of_the_seed(files):
    assert [list(e) for e in epochs(files, seed=1)] == [list(e) for e in epochs(files, seed=1)]
    assert list(epochs(files, seed=1)[0]) != list(epochs(files, seed=2)[0])


def test_the_last_batch_of_an_epoch_is_partial_not_mixed_with_the_next(files):
    sizes = [len(labels) for _, labels in training_dataset(files, SPEC, "label", 7, 0).take(10)]
    assert sizes == [7, 7, 7, 7, 2] * 2


def test_scan_finds_count_and_range_of_labels(files):
    scan = scan_labels(files, SPEC, "label")
    assert (scan.examples, scan.smallest, scan.largest) == (30, 0, 29)


def test_no_files_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no example files match"):
        scan_labels([str(tmp_path / "none-*")], SPEC, "label")


def test_a_label_that_preprocessing_did_not_return_is_named():
    with pytest.raises(UserError, match=r"returned no feature 'tree'.*it returned: label, x"):
        label_spec(SPEC, "tree")


def test_a_label_that_is_no_class_id_is_refused():
    with pytest.raises(UserError, match="must be one int64 class id"):
        label_spec({"label": tf.io.FixedLenFeature([], tf.string)}, "label")
