"""Runs the teachers' inference on blocks of examples on Beam's workers."""

import functools
from collections import Counter
from typing import Any, Literal

import apache_beam as beam
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
from stillhouse.components.soft_targets.compaction import COUNTERS, NANO, pack
from stillhouse.components.soft_targets.out_of_fold import by_fold, paths_by_fold
from stillhouse.components.soft_targets.views import ViewsOfExamples, write_views
from stillhouse.modules import progress
from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.compact import LARGEST_HALF, check_top
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import example_files, split_folder
from stillhouse.modules.ingestion.soft_targets import (
    KEY,
    PREFIX,
    SoftTargetsCard,
    fingerprints,
    is_packed,
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


def answer_batches(
    paths: list[list[str]], transform_graph: str, label: str, head: str, dtype: str, top: int | None
) -> BatchFunction:
    """Returns the function from serialized transformed examples to serialized soft targets.

    It counts faulty predictions, and what compact logits change, in Beam's counters.

    Args:
      paths: the teachers' SavedModels by fold; one entry: of the teachers that are asked about every example.
      transform_graph: the Transform's output.
      label, head, dtype, top: as in SoftTargetsParameters.
    """
    by_teachers = [load_teachers(of_fold, HEADS[head]) for of_fold in paths]
    names = [teacher.name for teacher in by_teachers[0]]
    feature_spec = tft.TFTransformOutput(transform_graph).transformed_feature_spec()
    parser = ExampleParser(feature_spec, label, HEADS[head])

    def answer_of(teachers):
        def answer(records):
            features, _, _ = parser(records)
            return {KEY: fingerprints(records), **predict_targets(teachers, features)}

        return tf.function(answer, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)

    def packs(name: str) -> bool:
        return name != KEY and is_packed(name, dtype, top)

    all_answers = [answer_of(teachers) for teachers in by_teachers]
    answers = by_fold(all_answers)
    specs = {
        PREFIX + name: tf.TensorSpec([None], tf.string) if packs(name) else tf.TensorSpec.from_tensor(output)
        for name, output in all_answers[0].get_concrete_function().structured_outputs.items()
    }
    converter, encoder = TensorsToRecordBatchConverter(specs), RecordBatchToExamplesEncoder()

    def function(records: tf.Tensor) -> list[bytes]:
        tensors = answers(records)
        faults = Faults(names, HEADS[head])
        faults.count(tensors[LOGITS].numpy())
        Metrics.counter(COUNTERS, "examples").inc(faults.examples)
        for number in range(len(names)):
            Metrics.counter(COUNTERS, f"broken {number}").inc(int(faults.broken[number]))
            Metrics.counter(COUNTERS, f"probabilities {number}").inc(int(faults.probabilities[number]))
        tensors = {
            name: tf.constant(pack(name, value.numpy(), dtype, top, HEADS[head])) if packs(name) else value
            for name, value in tensors.items()
        }
        return encoder.encode(converter.convert({PREFIX + name: value for name, value in tensors.items()}))

    return function


class SoftTargetsParameters(Parameters):
    """`batch_size` is the number of examples in a batch of the teachers' inference."""

    label: str
    head: str
    dtype: Literal["float32", "float16", "int8"]  # of the logits in the files
    batch_size: int
    views: ViewsOfExamples | None = None  # to ask about; None: the examples as they are
    top: int | None = None  # number of largest logits in the files; None: all
    folds: int | None = None  # of the inputs fold_1, ..., teacher by teacher; None: there are none


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
          UserError: the teachers differ in their classes or have fewer than `top`, a change does not fit a feature, or
            logits are NaN, probabilities, or too large for float16.
        """
        parameters = SoftTargetsParameters.read(exec_properties)
        label, head, dtype, top = parameters.label, parameters.head, parameters.dtype, parameters.top
        graph = artifact_utils.get_single_uri(input_dict["transform_graph"])
        paths, fold_paths = (
            [path_utils.serving_model_path(artifact.uri) for artifact in numbered_artifacts(input_dict, name)]
            for name in ("teacher", "fold")
        )
        teachers = load_teachers(paths, HEADS[head])
        widths = {teacher.name: teacher.outputs for teacher in teachers}
        check_widths(widths, teachers[0].outputs)
        check_top(top, teachers[0].outputs)
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
        asked = {split: [paths] for split in files}
        if parameters.folds:
            asked["train"] = paths_by_fold(fold_paths, parameters.folds)
        with self._make_beam_pipeline() as pipeline:
            for split, names in files.items():
                make_function = functools.partial(answer_batches, asked[split], graph, label, head, dtype, top)
                write = WriteBlocks(make_function, split_folder(targets.uri, split), parameters.batch_size)
                _ = pipeline | f"Files.{split}" >> beam.Create(names) | f"Ask.{split}" >> write
        counts = _counters(pipeline.result)
        _refuse_faults([f"{name} or its fold teachers" if parameters.folds else name for name in widths], head, counts)

        sizes = {split: size_in_bytes(split_folder(targets.uri, split)) for split in splits.values()}
        examples, compaction = counts["examples"], None
        if is_packed(LOGITS, dtype, top) and head != "regression":
            compaction = {"agreement": counts["agreeing"] / examples, "kl": counts["kl"] * NANO / examples}
        changed = {"views": views.count, "mixed": views.mixup is not None} if views else {}
        compact = {"top": top, "folds": parameters.folds, "compaction": compaction}
        card = SoftTargetsCard(list(widths), dtype, shapes, examples, sizes, **changed, **compact)
        card.write(targets.uri)
        progress.note(_summary(card))
        if views:
            size = sum(size_in_bytes(views_folder(targets.uri, split)) for split in files)
            progress.note(views_summary(views.count, size))


def _summary(card: SoftTargetsCard) -> str:
    """Returns one line about the files, for the run's output."""
    line = (
        f"cached {sum(card.bytes.values()):,} bytes of soft targets: {card.examples:,} examples, {len(card.teachers)} "
        f"teachers, {card.dtype}"
    )
    if card.top is not None:
        line += f", the {card.top} largest logits"
    if card.folds:
        line += f", train split out of {card.folds} folds"
    if card.compaction:
        line += (
            f"; compared with float32: same class for {100 * card.compaction['agreement']:.2f} % of the examples, "
            f"KL divergence {card.compaction['kl']:.2g} nats"
        )
    return line


def views_summary(count: int, size: int) -> str:
    """Returns one line about the files of views, `count` of each example, for the run's output."""
    line = f"cached {size:,} bytes of views: {count} of each example"
    if count == 1:  # unlike changes in training, which are new in every epoch
        line += ", the same in every epoch; for more set student.distillation.views"
    return line


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
