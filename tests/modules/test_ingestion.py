import itertools

import numpy as np
import pytest
import tensorflow as tf
from records import SPEC, write

from modules.errors import UserError
from modules.heads import HEADS
from modules.ingestion import (
    ExampleFiles,
    Portion,
    Shard,
    example_files,
    label_spec,
    parsed_batches,
    record_batches,
    scan_labels,
)


@pytest.fixture
def files(tmp_path):
    """Three shards of 10 examples, the label of example i is i."""
    for shard in range(3):
        write(tmp_path / f"examples-{shard}.gz", range(10 * shard, 10 * shard + 10))
    return [str(tmp_path / "examples-*")]


def labels_of_one_epoch(built, examples):
    return sorted(int(label) for _, labels, _ in built.take(-(-examples // 7)) for label in labels)


def dataset(files, batch=7, seed=0, portion=None, augment=None, **options):
    files = files if isinstance(files, ExampleFiles) else ExampleFiles(example_files(files))
    batches = record_batches(files, SPEC, "label", batch, seed, **options)
    return parsed_batches(batches, SPEC, "label", seed, portion=portion, augment=augment)


def epochs(files, seed, count=2, batch=7):
    batches = list(dataset(files, batch, seed).take(count * 5).as_numpy_iterator())
    for features, labels, targets in batches:
        np.testing.assert_array_equal(features["x"], np.stack([labels, -labels], axis=1))
        assert targets == {}
    return [np.concatenate([labels for _, labels, _ in batches[5 * e : 5 * e + 5]]) for e in range(count)]


def test_every_epoch_has_every_example_once_in_an_order_of_its_own(files):
    first, second = epochs(files, seed=1)
    assert sorted(first) == sorted(second) == list(range(30))
    assert list(first) != list(second)


def test_the_order_is_a_function_of_the_seed(files):
    assert [list(e) for e in epochs(files, seed=1)] == [list(e) for e in epochs(files, seed=1)]
    assert list(epochs(files, seed=1)[0]) != list(epochs(files, seed=2)[0])


def test_the_last_batch_of_an_epoch_is_partial_not_mixed_with_the_next(files):
    sizes = [len(labels) for _, labels, _ in dataset(files).take(10)]
    assert sizes == [7, 7, 7, 7, 2] * 2


def test_a_training_resumed_at_any_step_gets_the_batches_that_it_would_have_got(files):
    undisturbed = [list(labels) for _, labels, _ in dataset(files).take(12).as_numpy_iterator()]
    for step in (3, 5, 8):
        resumed = [list(labels) for _, labels, _ in dataset(files, first_step=step).take(12 - step).as_numpy_iterator()]
        assert resumed == undisturbed[step:]


@pytest.mark.parametrize("replicas_of_a_worker", [1, 2])
def test_the_portions_of_workers_make_up_each_global_batch(files, replicas_of_a_worker):
    of = 2 * replicas_of_a_worker
    whole = [list(labels) for _, labels, _ in dataset(files).take(5).as_numpy_iterator()]
    parts = [
        [labels for _, labels, _ in dataset(files, portion=portion).take(5 * replicas_of_a_worker).as_numpy_iterator()]
        for portion in (Portion(0, replicas_of_a_worker, of), Portion(replicas_of_a_worker, replicas_of_a_worker, of))
    ]
    for number, batch in enumerate(whole):
        mine = [part[number * replicas_of_a_worker + k] for part in parts for k in range(replicas_of_a_worker)]
        assert list(np.concatenate(mine)) == batch
        assert max(map(len, mine)) == -(-len(batch) // of)


def test_whole_batches_only_have_a_static_size_in_every_portion(files):
    built = dataset(files, batch=8, portion=Portion(0, 2, 2), drop_remainder=True)
    assert built.element_spec[1].shape == [4]
    assert [len(labels) for _, labels, _ in built.take(12)] == [4] * 12


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


def test_shards_are_disjoint_whatever_the_seed_and_make_up_the_whole(files):
    parts = [labels_of_one_epoch(dataset(files, seed=seed, shard=Shard(seed, 3)), 10) for seed in range(3)]
    assert sorted(itertools.chain(*parts)) == list(range(30))
    assert scan_labels(files, SPEC, "label", shard=Shard(1, 3)).examples == 10


def test_omitted_classes_are_left_out(files):
    kept = labels_of_one_epoch(dataset(files, omit_classes=[3, 29]), 28)
    assert kept == [i for i in range(30) if i not in (3, 29)]
    scan = scan_labels(files, SPEC, "label", omit_classes=[3, 29])
    assert (scan.examples, scan.largest) == (28, 28)


def test_transfer_examples_come_once_an_epoch_without_a_label_and_mixed_among_the_others(files, tmp_path):
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "x.gz", range(100, 115), labelled=False)
    labelled = ExampleFiles(example_files(files), count=30)
    transfer = ExampleFiles(example_files([str(tmp_path / "more" / "*")]), count=15)
    batches = list(dataset(labelled, batch=15, transfer=transfer).take(3))
    labels = np.concatenate([labels for _, labels, _ in batches])
    x = np.concatenate([features["x"][:, 0] for features, _, _ in batches])
    assert sorted(x[labels == -1]) == list(range(100, 115))
    assert sorted(labels[labels >= 0]) == list(range(30))
    assert all((part == -1).any() and (part >= 0).any() for part in np.split(labels, 3))


def test_augment_gets_another_seed_for_each_batch_and_the_same_in_each_run(files):
    def augment(features, seed):
        return {"x": features["x"] + tf.random.stateless_uniform([2], seed)}

    def noise():
        built = dataset(files, augment=augment).take(10)
        return [float(features["x"][0, 0]) - int(labels[0]) for features, labels, _ in built]

    first = noise()
    assert first == noise()
    assert len({round(value, 4) for value in first}) == 10


@pytest.mark.parametrize(
    ("head", "spec", "message"),
    [
        ("regression", tf.io.FixedLenFeature([], tf.int64), "must be one float32 number"),
        ("multi_label", tf.io.FixedLenFeature([], tf.int64), "must be 0 or 1 for each label"),
    ],
)
def test_a_label_has_to_fit_the_head(head, spec, message):
    with pytest.raises(UserError, match=message):
        label_spec({"label": spec}, "label", HEADS[head])
