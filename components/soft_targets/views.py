"""Writes the views of examples on Beam's workers, before the teachers are asked about them.

A view is a function of the seed, of the example's place (split, file, block, batch) and of the number of the view; so a
worker that Beam starts again writes the same. Mixup and swap take partners from the same batch of the same split.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder
from tfx_bsl.tfxio.tensor_to_arrow import TensorsToRecordBatchConverter

from stillhouse.components.record_blocks import RECORDS_IN_BLOCK, blocks
from stillhouse.modules.atomic import new_file
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import BLOCK, read
from stillhouse.modules.ingestion.soft_targets import VIEW, views_folder
from stillhouse.modules.ingestion.views import Views, kinds_of, make_views
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.task import find_augment
from stillhouse.modules.settings import InputChanges

BATCH = 1024  # examples that mixup and swap take partners from


class ViewsOfExamples(InputChanges):
    """The views that are written: the student's input changes, and what they are a function of."""

    count: int  # of every example
    seed: int
    task: str  # import path of the task module
    code: str = ""  # fingerprint of the task's augment, for TFX's cache


def seed_of(*place: int | str) -> list[int]:
    """Returns the seed, two int32, of a batch at a place."""
    digest = hashlib.sha256("/".join(map(str, place)).encode()).digest()
    return [int.from_bytes(digest[begin : begin + 4], "little", signed=True) for begin in (0, 4)]


class _WriteView(beam.DoFn):
    def __init__(self, settings: ViewsOfExamples, views: Views, graph: str, label: str, head: str, folder: str):
        self._settings, self._views, self._folder = settings, views, folder
        self._graph, self._label, self._head = graph, label, head
        self._search_path = [path for path in sys.path if path]  # of the task module

    def setup(self):
        sys.path.extend(path for path in self._search_path if path not in sys.path)
        task = self._settings.task
        views = self._views.with_augment(find_augment(task) if self._settings.augment else None)
        self._encode = view_encoder(self._graph, self._label, self._head, views, task)

    def process(self, block):
        (file, number, count, _), view = block
        name, total = os.path.basename(file), self._settings.count
        split = os.path.basename(self._folder)
        records = read([file]).skip(number * RECORDS_IN_BLOCK).take(RECORDS_IN_BLOCK).batch(BATCH)
        path = os.path.join(self._folder, f"{name}{VIEW}{view:05d}-of-{total:05d}{BLOCK}{number:05d}-of-{count:05d}.gz")
        with new_file(path) as unfinished, tf.io.TFRecordWriter(unfinished, "GZIP") as writer:
            for position, batch in enumerate(records.prefetch(1)):
                seed = seed_of(self._settings.seed, split, name, number, position, view)
                for record in self._encode(batch, tf.constant(seed, tf.int32)):
                    writer.write(record)
        yield path


def view_encoder(graph: str, label: str, head: str, views: Views, task: str) -> Callable[..., list[bytes]]:
    """Returns the function from serialized examples and a seed, int32 [2], to serialized views.

    Raises:
      UserError: the task's augment raises, or gives features of other names, types or shapes.
    """
    spec = tft.TFTransformOutput(graph).transformed_feature_spec()
    parser = ExampleParser(spec, label, HEADS[head])

    def view_of(records, seed):
        return views(parser(records), seed)

    signature = [tf.TensorSpec([None], tf.string), tf.TensorSpec([2], tf.int32)]
    function = tf.function(view_of, input_signature=signature)  # with AutoGraph, for the user's augment
    try:
        features, labels, targets = function.get_concrete_function().structured_outputs
    except Exception as error:  # a user's function may raise anything
        if not views.augment:
            raise
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{task}.augment raised {type(error).__name__}: {reason[-1].strip() if reason else ''}"
        ) from error
    kinds = kinds_of(spec, label)
    for name in kinds:
        expected = f"{kinds[name].name} {[None, *spec[name].shape]}, as preprocessing_fn returns it"
        value = features.get(name)
        if value is None:
            raise UserError(f"{task}.augment: feature {name!r}: found none; expected {expected}")
        if value.dtype != kinds[name] or not value.shape[1:].is_compatible_with(spec[name].shape):
            raise UserError(
                f"{task}.augment: feature {name!r}: found {value.dtype.name} {value.shape}; expected {expected}"
            )
    specs = {name: tf.TensorSpec([None, *spec[name].shape], kind) for name, kind in kinds.items()}
    specs |= {name: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for name, value in targets.items()}
    specs[label] = tf.TensorSpec([None, *labels.shape[1:]], labels.dtype)
    converter, encoder = TensorsToRecordBatchConverter(specs), RecordBatchToExamplesEncoder()

    def encode(records: tf.Tensor, seed: tf.Tensor) -> list[bytes]:
        features, labels, targets = function(records, seed)
        tensors = features | targets | {label: labels}
        return encoder.encode(converter.convert({name: tensors[name] for name in specs}))

    return encode


def write_views(
    pipeline: beam.Pipeline,
    settings: ViewsOfExamples,
    files: Mapping[str, Sequence[str]],
    graph: str,
    label: str,
    head: str,
    folder: str,
) -> None:
    """Adds to a pipeline the writing of every split's views into the folder of the soft targets.

    Args:
      pipeline: of Beam.
      settings: the views.
      files: files of transformed examples, by split.
      graph: folder of the Transform's output.
      label: name of the label.
      head: classification, multi_label or regression.
      folder: of the soft targets.

    Raises:
      UserError: a change does not fit a feature, or the task has no augment.
    """
    augment = find_augment(settings.task) if settings.augment else None
    spec = tft.TFTransformOutput(graph).transformed_feature_spec()
    views = make_views(settings.input_changes(), spec, label, files["train"], augment)
    view_encoder(graph, label, head, views, settings.task)  # a user's mistake is one here, and not on a worker
    views = views.with_augment(None)
    for split, names in files.items():
        write = _WriteView(settings, views, graph, label, head, views_folder(folder, split))
        tf.io.gfile.makedirs(views_folder(folder, split))
        _ = (
            pipeline
            | f"Files.{split}" >> beam.Create(names)
            | f"Cut.{split}" >> beam.FlatMap(_blocks_of_views, settings.count)
            | f"Spread.{split}" >> beam.Reshuffle()
            | f"View.{split}" >> beam.ParDo(write)
        )


def _blocks_of_views(file: str, count: int) -> Iterator[tuple[tuple, int]]:
    return ((block, view) for block in blocks(file, RECORDS_IN_BLOCK) for view in range(count))
