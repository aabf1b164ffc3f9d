"""What holds for batches from memory and from files alike."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from records import SPEC, write

from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import ExampleFiles
from stillhouse.modules.ingestion.in_memory import Columns
from stillhouse.modules.ingestion.labels import scan_labels
from stillhouse.modules.ingestion.on_disk import on_disk
from stillhouse.modules.ingestion.stream import Portion, Source, parsed_batches, record_batches
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Ingestion, Shard

PARSER = ExampleParser(SPEC, "label", HEADS["classification"])
BATCH = 7
STEPS = 5  # of an epoch of 30 examples


class Memory:
    """cache: memory."""

    def __init__(self, folder, parser=PARSER):
        self.parser = parser

    def columns(self, source):
        columns = Columns.load(source.files, self.parser, source.shard, source.omit_classes)
        return columns.joined(Columns.load(source.transfer, self.parser)) if source.transfer else columns

    def __call__(self, source, batch=BATCH, seed=0, options=Ingestion(), **more):  # noqa: B008
        return self.columns(source).batches(batch, seed, options, **more)


class Stream:
    """cache: none."""

    def __init__(self, folder, parser=PARSER):
        self.parser = parser

    def __call__(self, source, batch=BATCH, seed=0, options=Ingestion(), change=None, portion=None, **more):  # noqa: B008
        counted = replace(source.files, count=scan_labels(source, self.parser).examples)
        source = replace(source, files=counted)
        batches = record_batches(source, self.parser, batch, seed, options, **more)
        return parsed_batches(batches, self.parser, seed, options, change=change, portion=portion)


class CachedStream(Stream):
    """cache: memory of a stream, as a parameter server's chief has it."""

    def __call__(self, source, **more):
        return super().__call__(source, cached=True, **more)


class Disk(Stream):
    """cache: disk."""

    def __init__(self, folder, parser=PARSER):
        super().__init__(folder, parser)
        self.folder = str(folder / "cache")

    def __call__(self, source, **more):
        files = on_disk(source.files, self.folder)
        transfer = source.transfer and on_disk(source.transfer, self.folder)
        return super().__call__(replace(source, files=files, transfer=transfer), **more)


@pytest.fixture(params=[Memory, Stream, pytest.param(CachedStream, marks=pytest.mark.soak), Disk])
def way(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture(params=["GZIP", pytest.param("", marks=pytest.mark.soak)])
def source(request, tmp_path):
    """Three shards of 10 examples, the label of example i is i; the files' names do not tell how they are written."""
    return Source(
        ExampleFiles(
            [
                write(tmp_path / f"examples-{shard}", range(10 * shard, 10 * shard + 10), compression=request.param)
                for shard in range(3)
            ]
        )
    )


def flat(lists):
    return list(itertools.chain(*lists))


def labels_of(dataset, batches):
    return [list(labels) for _, labels, _ in dataset.take(batches).as_numpy_iterator()]


def test_features_belong_to_their_labels(way, source):
    for features, labels, targets in way(source).take(2 * STEPS).as_numpy_iterator():
        np.testing.assert_array_equal(features["x"], np.stack([labels, -labels], axis=1))
        assert (features["x"].dtype, labels.dtype) == (np.float32, np.int64)
        assert targets == {}


def test_every_epoch_has_every_example_once_in_an_order_of_its_own(way, source):
    batches = labels_of(way(source, seed=1), 2 * STEPS)
    first, second = flat(batches[:STEPS]), flat(batches[STEPS:])
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second


def test_the_order_is_a_function_of_the_seed(way, source):
    assert labels_of(way(source, seed=1), 8) == labels_of(way(source, seed=1), 8)
    assert labels_of(way(source, seed=1), 8) != labels_of(way(source, seed=2), 8)


def test_the_last_batch_of_an_epoch_is_partial_not_mixed_with_the_next(way, source):
    assert [len(labels) for labels in labels_of(way(source), 2 * STEPS)] == [7, 7, 7, 7, 2] * 2


def test_a_training_resumed_at_any_step_gets_the_batches_that_it_would_have_got(way, source):
    undisturbed = labels_of(way(source), 12)
    for step in (3, 5, 8):
        assert labels_of(way(source, first_step=step), 12 - step) == undisturbed[step:]


@pytest.mark.parametrize("replicas_of_a_worker", [1, 2])
def test_the_portions_of_workers_make_up_each_global_batch(way, source, replicas_of_a_worker):
    of = 2 * replicas_of_a_worker
    whole = labels_of(way(source), STEPS)
    parts = [
        labels_of(way(source, portion=portion), STEPS * replicas_of_a_worker)
        for portion in (Portion(0, replicas_of_a_worker, of), Portion(replicas_of_a_worker, replicas_of_a_worker, of))
    ]
    for number, batch in enumerate(whole):
        mine = [part[number * replicas_of_a_worker + k] for part in parts for k in range(replicas_of_a_worker)]
        assert flat(mine) == batch
        assert max(map(len, mine)) == -(-len(batch) // of)


def test_whole_batches_only_have_a_static_size_in_every_portion(way, source):
    built = way(source, batch=8, portion=Portion(0, 2, 2), drop_remainder=True)
    assert built.element_spec[1].shape == [4]
    assert [len(labels) for labels in labels_of(built, 12)] == [4] * 12


def test_shards_are_disjoint_whatever_the_seed_and_make_up_the_whole(way, source):
    parts = [labels_of(way(replace(source, shard=Shard(index=k, of=3)), seed=k), 2) for k in range(3)]
    assert sorted(flat(flat(parts))) == list(range(30))


def test_omitted_classes_are_left_out(way, source):
    kept = labels_of(way(replace(source, omit_classes=[3, 29])), 4)
    assert sorted(flat(kept)) == [i for i in range(30) if i not in (3, 29)]


def test_transfer_examples_come_once_an_epoch_without_a_label_and_mixed_among_the_others(way, source, tmp_path):
    more = ExampleFiles([write(tmp_path / "more", range(100, 115), labelled=False)], count=15)
    batches = list(way(replace(source, transfer=more), batch=15).take(3))
    labels = np.concatenate([labels for _, labels, _ in batches])
    x = np.concatenate([features["x"][:, 0] for features, _, _ in batches])
    assert sorted(x[labels == -1]) == list(range(100, 115))
    assert sorted(labels[labels >= 0]) == list(range(30))
    assert all(0 < np.sum(part == -1) < 15 for _, part, _ in batches)


def test_a_change_has_a_seed_of_its_own_in_every_batch(way, source):
    def change(batch, seed):
        features, *others = batch
        features |= {"seed": tf.repeat(seed[None], tf.shape(features["x"])[0], axis=0)}
        return features, *others

    batches = list(way(source, seed=5, change=change).take(3).as_numpy_iterator())
    assert [features["seed"][0].tolist() for features, _, _ in batches] == [[5, 0], [5, 1], [5, 2]]


@pytest.mark.parametrize("kind", [Memory, Stream, Disk])
def test_examples_of_differing_lengths_are_read_too(kind, tmp_path, source):
    spec = {"x": tf.io.VarLenFeature(tf.float32), "label": SPEC["label"]}
    way = kind(tmp_path, ExampleParser(spec, "label", HEADS["classification"]))
    for features, labels, _ in way(source).take(STEPS):
        np.testing.assert_array_equal(tf.sparse.to_dense(features["x"])[:, 0], labels)
    assert sorted(flat(labels_of(way(source), STEPS))) == list(range(30))


def test_files_of_differing_compression_and_an_empty_one_are_read_together(way, tmp_path):
    files = [
        write(tmp_path / "a", range(20)),
        write(tmp_path / "b", [], compression=""),
        write(tmp_path / "c", []),
        write(tmp_path / "d", range(20, 30), compression=""),
    ]
    (tmp_path / "e").write_bytes(b"")
    source = Source(ExampleFiles([*files, str(tmp_path / "e")]))
    assert sorted(flat(labels_of(way(source), STEPS))) == list(range(30))
