"""Runs the teachers' inference on blocks of examples on Beam's workers."""

import functools
from collections import Counter
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.metrics import Metrics, MetricsFilter
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder
from tfx_bsl.tfxio.tensor_to_arrow import TensorsToRecordBatchConverter

from stillhouse.components.base import Parameters, numbered_artifacts
from stillhouse.components.record_blocks import BatchFunction, WriteBlocks
from stillhouse.components.soft_targets.views import ViewsOfExamples, write_views
from stillhouse.modules import progress
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import example_files, split_folder
from stillhouse.modules.ingestion.soft_targets import (
    KEY,
    PREFIX,
    SoftTargetsCard,
    fingerprints,
    view_files,
    views_folder,
)
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.serving import size_in_bytes
from stillhouse.modules.models.teachers import (
    LOGITS,
    Faults,
    check_widths,
    load_teachers,
    predict_targets,
    target_shapes,
)

SPLITS = {"examples": "train", "transfer_examples": "transfer"}  # by input
COUNTERS = "soft_targets"  # Beam's namespace
LARGEST_HALF = float(np.finfo(np.float16).max)


def answer_batches(paths: list[str], transform_graph: str, label: str, head: str, dtype: str) -> BatchFunction:
    """Returns the function from serialized transformed examples to serialized soft targets.

    It counts faulty predictions in Beam's counters.
    """
    teachers = load_teachers(paths, HEADS[head])
    names = [teacher.name for teacher in teachers]
    feature_spec = tft.TFTransformOutput(transform_graph).transformed_feature_spec()
    parser = ExampleParser(feature_spec, label, HEADS[head])
    half = dtype == "float16"

    def answer(records):
        features, _, _ = parser(records)
        return {KEY: fingerprints(records), **predict_targets(teachers, features)}

    answers = tf.function(answer, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    specs = {
        PREFIX + name: tf.TensorSpec([None], tf.string) if half and name != KEY else tf.TensorSpec.from_tensor(output)
        for name, output in answers.get_concrete_function().structured_outputs.items()
    }
    converter, encoder = TensorsToRecordBatchConverter(specs), RecordBatchToExamplesEncoder()

    def as_bytes(values: np.ndarray) -> tf.Tensor:
        too_large = np.isfinite(values) & (np.abs(values) > LARGEST_HALF)
        Metrics.counter(COUNTERS, "overflow").inc(int(too_large.any(axis=tuple(range(1, values.ndim))).sum()))
        with np.errstate(over="ignore"):
            return tf.constant([row.tobytes() for row in values.astype(np.float16)])

    def function(records: tf.Tensor) -> list[bytes]:
        tensors = answers(records)
        faults = Faults(names, HEADS[head])
        faults.count(tensors[LOGITS].numpy())
        Metrics.counter(COUNTERS, "examples").inc(faults.examples)
        for number in range(len(names)):
            Metrics.counter(COUNTERS, f"broken {number}").inc(int(faults.broken[number]))
            Metrics.counter(COUNTERS, f"probabilities {number}").inc(int(faults.probabilities[number]))
        if half:
            tensors = {name: value if name == KEY else as_bytes(value.numpy()) for name, value in tensors.items()}
        return encoder.encode(converter.convert({PREFIX + name: value for name, value in tensors.items()}))

    return function


class SoftTargetsParameters(Parameters):
    """`dtype` is that of the logits in the files, `batch_size` the examples in a batch of the teachers' inference."""

    label: str
    head: str
    dtype: Literal["float32", "float16"]
    batch_size: int
    views: ViewsOfExamples | None = None  # to ask about; None: the examples as they are


class Executor(base_beam_executor.BaseBeamExecutor):
    """Writes files of soft targets parallel to the examples' files."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["soft_targets"].

        Raises:
          UserError: the teachers differ in their classes, a change does not fit a feature, or logits are NaN,
            probabilities, or too large for float16.
        """
        parameters = SoftTargetsParameters.read(exec_properties)
        label, head, dtype = parameters.label, parameters.head, parameters.dtype
        graph = artifact_utils.get_single_uri(input_dict["transform_graph"])
        paths = [path_utils.serving_model_path(artifact.uri) for artifact in numbered_artifacts(input_dict, "teacher")]
        teachers = load_teachers(paths, HEADS[head])
        widths = {teacher.name: teacher.outputs for teacher in teachers}
        check_widths(widths, teachers[0].outputs)
        shapes = target_shapes(teachers)

        targets = artifact_utils.get_single_instance(output_dict["soft_targets"])
        splits = {name: split for name, split in SPLITS.items() if input_dict.get(name)}
        targets.split_names = artifact_utils.encode_split_names(list(splits.values()))
        files = {
            split: example_files([io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict[name], split))])
            for name, split in splits.items()
        }
        views = parameters.views
        if views:
            with self._make_beam_pipeline() as pipeline:
                write_views(pipeline, views, files, graph, label, head, targets.uri)
            files = {split: view_files(targets.uri, split) for split in files}
        make_function = functools.partial(answer_batches, paths, graph, label, head, dtype)
        with self._make_beam_pipeline() as pipeline:
            for split, names in files.items():
                write = WriteBlocks(make_function, split_folder(targets.uri, split), parameters.batch_size)
                _ = pipeline | f"Files.{split}" >> beam.Create(names) | f"Ask.{split}" >> write
        counts = _counters(pipeline.result)
        _refuse_faults(list(widths), head, counts)

        sizes = {split: size_in_bytes(split_folder(targets.uri, split)) for split in splits.values()}
        changed = {"views": views.count, "mixed": views.mixup is not None} if views else {}
        SoftTargetsCard(list(widths), dtype, shapes, counts["examples"], sizes, **changed).write(targets.uri)
        progress.note(
            f"cached {sum(sizes.values()):,} bytes of soft targets: {counts['examples']:,} examples, {len(teachers)} "
            f"teachers, {dtype}"
        )
        if views:
            size = sum(size_in_bytes(views_folder(targets.uri, split)) for split in files)
            progress.note(f"cached {size:,} bytes of views: {views.count} of each example")


def _counters(result) -> dict[str, int]:
    """Returns the counters, each summed over the splits, which are separate steps to Beam."""
    counts: Counter[str] = Counter()
    for counter in result.metrics().query(MetricsFilter().with_namespace(COUNTERS))["counters"]:
        counts[counter.key.metric.name] += counter.result
    return counts


def _refuse_faults(names: list[str], head: str, counts: dict[str, int]) -> None:
    faults = Faults(names, HEADS[head], counts.get("examples", 0))
    faults.broken += [counts.get(f"broken {number}", 0) for number in range(len(names))]
    faults.probabilities += [counts.get(f"probabilities {number}", 0) for number in range(len(names))]
    faults.refuse()
    if counts.get("overflow"):
        raise UserError(
            f"student.distillation.targets_dtype: logits of {counts['overflow']} examples are too large for float16 "
            f"(above {LARGEST_HALF:.0f}); set float32"
        )
