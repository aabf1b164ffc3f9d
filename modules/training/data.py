"""The examples of a training job: checks, and datasets for its strategy."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import tensorflow as tf
import tensorflow_transform as tft

from stillhouse.modules import progress
from stillhouse.modules.cluster.spec import ClusterSpec, in_step
from stillhouse.modules.cluster.strategies import is_asynchronous
from stillhouse.modules.ingestion.choice import choose, decoded_bytes, remember, remembered
from stillhouse.modules.ingestion.corruption import explain_misfit, without_damage
from stillhouse.modules.ingestion.examples import ExampleParser, label_spec
from stillhouse.modules.ingestion.files import ExampleFiles, count_records, example_files, is_parquet, split_folder
from stillhouse.modules.ingestion.folds import check_folds
from stillhouse.modules.ingestion.in_memory import Columns
from stillhouse.modules.ingestion.labels import LabelScan, scan_labels, scan_of
from stillhouse.modules.ingestion.on_disk import on_disk
from stillhouse.modules.ingestion.options import or_autotune, with_options
from stillhouse.modules.ingestion.service import InputService
from stillhouse.modules.ingestion.shared_input import SharedInput
from stillhouse.modules.ingestion.soft_targets import SoftTargetsCard, check_match, read_soft_targets_card, view_files
from stillhouse.modules.ingestion.stream import (
    Change,
    Portion,
    Source,
    parsed_batches,
    portion_of,
    record_batches,
    slice_size,
    steps_in,
)
from stillhouse.modules.ingestion.waiting import clocked
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Ingestion
from stillhouse.modules.training.config import TrainingConfig, eval_patterns, identity_of, validation_patterns

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


@dataclass(frozen=True)
class TrainingData:
    """The examples of a training job, in memory or in files that are read in every epoch."""

    source: Source  # counted; what this process reads
    columns: Columns | None
    parser: ExampleParser
    options: Ingestion  # with the cache decided
    workers: int  # that have files of their own; 1: every process reads all of them
    train_labels: LabelScan  # of all processes
    eval_labels: LabelScan
    transfer_examples: int  # of an epoch, those without a label
    validation_files: list[str]  # []: no validation split
    validation_labels: LabelScan | None

    @property
    def examples(self) -> int:
        """Of an epoch; with K views of every example in the files, an epoch reads a K-th of them."""
        return self.train_labels.examples // (self.parser.views or 1) + self.transfer_examples


def feature_spec_of(config: TrainingConfig, fn_args: "FnArgs") -> dict:
    """Returns the parsing spec of a training job's transformed features, including the label."""
    spec = tft.TFTransformOutput(fn_args.transform_graph_path).transformed_feature_spec()
    if config.masking:
        spec.pop(config.masking.label, None)  # examples without it are as good
    return spec


def decide_cache(config: TrainingConfig, fn_args: "FnArgs") -> TrainingConfig:
    """Returns the configuration with ingestion.cache: auto decided, and says how.

    The order of the examples depends on it, so all workers share one decision, and a resumed training job keeps it.
    """
    if config.ingestion.cache != "auto":
        return config
    identity = identity_of(config, fn_args)
    cache = remembered(config.checkpoint_folder, identity)
    if cache is None:
        spec = feature_spec_of(config, fn_args)
        card = read_soft_targets_card(config.soft_targets) if config.soft_targets else None
        label_spec(spec, config.label, HEADS[config.head])
        parser = ExampleParser(spec, config.label, HEADS[config.head])
        files = training_files(config, fn_args, card)
        decoded = decoded_bytes([*files["train"], *files["transfer"]], parser) + (card.decoded_bytes if card else 0)
        cache, why = choose(config.ingestion, decoded, config.strategy.workers or 1)
        progress.note(f"{config.name}: {why}")
        remember(config.checkpoint_folder, identity, cache)
    return config.model_copy(update={"ingestion": config.ingestion.model_copy(update={"cache": cache})})


def training_files(config: TrainingConfig, fn_args: "FnArgs", card: SoftTargetsCard | None) -> dict[str, list[str]]:
    """Returns the files of labelled and unlabelled examples, by split; where their views are in files, those."""
    folder = config.soft_targets
    if folder and card and card.views:
        return {
            "train": view_files(folder, "train"),
            "transfer": view_files(folder, "transfer") if config.transfer_files else [],
        }
    return {
        "train": example_files(fn_args.train_files),
        "transfer": example_files(config.transfer_files) if config.transfer_files else [],
    }


def read_data(
    config: TrainingConfig, fn_args: "FnArgs", feature_spec: dict, cluster: ClusterSpec | None = None
) -> TrainingData:
    """Returns the examples of the training job, scanned once; the cache of `config` is decided.

    Args:
      config: of the training.
      fn_args: has its files.
      feature_spec: as `feature_spec_of` returns it.
      cluster: the training job's processes, which may share the files; None: a single process.

    Raises:
      UserError: no examples, corrupt ones or schema violations, labels that are not valid for the head, or soft targets
        are those of other examples.
    """
    label_spec(feature_spec, config.label, HEADS[config.head])
    card = read_soft_targets_card(config.soft_targets) if config.soft_targets else None
    files = training_files(config, fn_args, card) | {
        "eval": example_files(eval_patterns(fn_args)),
        "validation": [name for pattern in validation_patterns(fn_args) for name in example_files([pattern])],
    }
    try:
        return _looked_through(config, files, feature_spec, card, cluster)
    except tf.errors.DataLossError:
        return _looked_through(config, without_damage(files, config.ingestion), feature_spec, card, cluster)
    except tf.errors.InvalidArgumentError as error:
        parser = ExampleParser(feature_spec, config.label, HEADS[config.head])
        raise explain_misfit([name for names in files.values() for name in names], parser.columns, error) from error


def _looked_through(
    config: TrainingConfig,
    files: dict[str, list[str]],
    feature_spec: dict,
    card: SoftTargetsCard | None,
    cluster: ClusterSpec | None,
) -> TrainingData:
    options, head = config.ingestion, HEADS[config.head]
    parser = ExampleParser(feature_spec, config.label, head, card)

    def part(split: str) -> ExampleFiles:
        targets = split_folder(config.soft_targets, split) if card and config.soft_targets else None
        example_parts = ExampleFiles(files[split], targets)
        if card and targets:
            check_match(example_parts.examples, targets, card)
        needs_copy = options.cache == "disk" or any(map(is_parquet, example_parts.examples))
        return on_disk(example_parts, options.cache_folder) if needs_copy else example_parts

    source = Source(
        part("train"),
        part("transfer") if files["transfer"] else None,
        config.shard,
        config.omit_classes,
        config.held_out,
    )
    if config.held_out:
        check_folds(source.files, parser, config.held_out.of)
    in_memory = options.cache == "memory" and config.strategy.name != "parameter_server"
    own, workers = source, 1
    if cluster and options.sharding == "file" and config.strategy.name == "multi_worker_mirrored":
        tasks = in_step(cluster)
        own, workers = source.of_worker(tasks.index(cluster.task_name), len(tasks)), len(tasks)
    own, columns, labels = _counted(own, parser, in_memory)
    transfer_examples = own.transfer.count if own.transfer else 0
    if workers > 1:
        whole, _, labels = _counted(source, parser, in_memory=False)
        transfer_examples = whole.transfer.count if whole.transfer else 0
    eval_parser = ExampleParser({config.label: feature_spec[config.label]}, config.label, head)
    eval_labels = scan_labels(Source(ExampleFiles(files["eval"])), eval_parser)
    validation_labels = None
    if files["validation"]:
        validation_labels = scan_labels(Source(ExampleFiles(files["validation"])), eval_parser)
    return TrainingData(
        own,
        columns,
        parser,
        options,
        workers,
        labels,
        eval_labels,
        transfer_examples // (parser.views or 1),
        files["validation"],
        validation_labels,
    )


def _counted(source: Source, parser: ExampleParser, in_memory: bool) -> tuple[Source, Columns | None, LabelScan]:
    """Reads all examples once and returns the source with their numbers, them if wanted, and what their labels are."""
    columns = None
    if in_memory:
        columns = Columns.load(source.files, parser, source.shard, source.omit_classes, source.held_out)
        labels = scan_of([columns.labels], source.files.examples, parser.label)
        if source.transfer:
            unlabelled = Columns.load(source.transfer, parser)
            count, columns = unlabelled.count, columns.joined(unlabelled)
    else:
        labels = scan_labels(source, parser)
        count = scan_labels(Source(source.transfer), parser, labelled=False).examples if source.transfer else 0
    files = replace(source.files, count=labels.examples)
    return (
        replace(source, files=files, transfer=replace(source.transfer, count=count) if source.transfer else None),
        columns,
        labels,
    )


def updates_of(config: TrainingConfig, data: TrainingData, whole_batches: bool) -> int | None:
    """Returns the number of updates that the configuration asks for; None: as many as its epochs have batches.

    Args:
      config: of the training job.
      data: its examples.
      whole_batches: whether the last batch of a pass is skipped if it is smaller.
    """
    matched = config.matched
    if matched is None:
        return config.updates
    others = count_records(example_files(config.matched_files)) if config.matched_files else 0
    alone, together = (
        steps_in(count, matched.batch_size, whole_batches) for count in (data.examples, data.examples + others)
    )
    return config.epochs * (together if matched.with_others else alone) + matched.first_epochs * together


def make_datasets(
    config: TrainingConfig,
    data: TrainingData,
    strategy: tf.distribute.Strategy,
    change: Change | None,
    cluster: ClusterSpec | None = None,
    service: InputService | None = None,
):
    """Returns, from the first step, the function from tf.distribute's InputContext to the batches of that input.

    A batch is ((features, labels, targets), waited), as `stillhouse.modules.ingestion.waiting.clocked` has it.

    Args:
      config: of the training.
      data: its examples.
      strategy: what the replicas are.
      change: of each batch.
      cluster: the processes of a parameter server's training, whose chief reads for all workers.
      service: processes that parse for this one.
    """
    options = data.options
    whole_batches = {"drop_remainder": isinstance(strategy, tf.distribute.TPUStrategy)}
    # A worker with its own files takes its part of a global batch from them.
    replicas = strategy.num_replicas_in_sync // data.workers
    own_batch = (
        config.batch_size if data.workers == 1 else slice_size(config.batch_size, data.workers * replicas) * replicas
    )

    def ready(batches):
        return with_options(clocked(batches.prefetch(or_autotune(options.prefetch))), options)

    def records(first_step, **more):
        return record_batches(
            data.source, data.parser, own_batch, config.seed, options, first_step=first_step, **whole_batches, **more
        )

    def parsed(batches, portion=None):
        batches = parsed_batches(batches, data.parser, config.seed, options, change=change, portion=portion)
        return ready(service.distributed(batches) if service else batches)

    served: list[SharedInput] = []  # lives as long as the returned function

    def shared(first_step):
        assert cluster, "workers of a parameter server share the input"
        host = cluster.addresses["chief"][0].rpartition(":")[0]
        served[:] = [SharedInput(records(first_step, cached=options.cache == "memory"), host)]
        return lambda context: parsed(served[0].batches())

    def separate(first_step):
        def of_pipeline(context):
            portion = Portion(0, replicas, replicas) if data.workers > 1 else portion_of(context)
            if data.columns is None:
                return parsed(records(first_step), portion)
            more = {"first_step": first_step, "change": change, "portion": portion, **whole_batches}
            return ready(data.columns.batches(own_batch, config.seed, options, **more))

        return of_pipeline

    return shared if is_asynchronous(strategy) else separate
