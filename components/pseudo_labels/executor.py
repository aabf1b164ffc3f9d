"""Reads the soft targets twice: for the teacher's confidence, and to write the chosen examples."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from stillhouse.components.base import Parameters
from stillhouse.modules import progress
from stillhouse.modules.distillation.pseudo_labels import certain_logits, confidence_of, copies_of, pseudo_logits
from stillhouse.modules.ingestion.examples import ExampleParser
from stillhouse.modules.ingestion.files import BLOCK, RECORDS_AT_ONCE, example_files, read, split_folder, target_files
from stillhouse.modules.ingestion.soft_targets import (
    KEY,
    PREFIX,
    SoftTargetsCard,
    fingerprints,
    read_soft_targets_card,
)
from stillhouse.modules.models.combination import combine
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.models.serving import size_in_bytes
from stillhouse.modules.models.teachers import LOGITS
from stillhouse.modules.settings import WeightedEnsemble

TRAIN, TRANSFER = "train", "transfer"
ONLY_BLOCK = f"{BLOCK}00000-of-00001.gz"
HEAD = HEADS["classification"]


class PseudoLabelsParameters(Parameters):
    """`rule` has kind, min_confidence and balance, `ensemble` the teachers' weights and their combination."""

    label: str
    rule: dict[str, Any]
    ensemble: WeightedEnsemble


class Executor(base_executor.BaseExecutor):
    """Writes pseudo-labelled examples, and targets for them and for the labelled ones.

    The teacher's class and confidence for all unlabelled examples are in memory at once.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["pseudo_labelled"] (the split transfer) and output_dict["targets"].

        Raises:
          UserError: no example reaches the minimum confidence.
        """
        parameters = PseudoLabelsParameters.read(exec_properties)
        rule, ensemble, label = parameters.rule, parameters.ensemble, parameters.label
        soft_targets = artifact_utils.get_single_uri(input_dict["soft_targets"])
        card = read_soft_targets_card(soft_targets)
        graph = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
        parser = ExampleParser(graph.transformed_feature_spec(), label, HEAD)

        def files_of(name: str, split: str) -> list[str]:
            return example_files([io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict[name], split))])

        def teacher_of(record_batch: tf.Tensor) -> np.ndarray:
            parsed = tf.io.parse_example(record_batch, card.spec())
            return combine(
                card.targets_of(parsed)[LOGITS], **ensemble.model_dump(), temperature=1.0, head=HEAD.name
            ).numpy()

        pseudo_labelled = artifact_utils.get_single_instance(output_dict["pseudo_labelled"])
        targets = artifact_utils.get_single_instance(output_dict["targets"])
        pseudo_labelled.split_names = artifact_utils.encode_split_names([TRANSFER])
        targets.split_names = artifact_utils.encode_split_names([TRAIN, TRANSFER])
        classes, written = card.shapes[LOGITS][1], {}

        unlabelled, targets_folder = files_of("transfer_examples", TRANSFER), split_folder(soft_targets, TRANSFER)
        teacher_logits = [
            teacher_of(batch)
            for file in unlabelled
            for batch in read(target_files(file, targets_folder)).batch(RECORDS_AT_ONCE)
        ]
        confidence = np.concatenate([confidence_of(logits) for logits in teacher_logits])
        likeliest = np.concatenate([logits.argmax(axis=-1) for logits in teacher_logits])
        copies = copies_of(confidence, likeliest, rule["min_confidence"], rule["balance"])
        progress.note(_summary(confidence, likeliest, copies, rule))

        position, written[TRANSFER] = 0, 0
        for file in unlabelled:
            pairs = read([file]), read(target_files(file, targets_folder))
            batches = tf.data.Dataset.zip(pairs).batch(RECORDS_AT_ONCE)
            records, answers = [], []
            for examples, of_teacher in batches:
                logits = pseudo_logits(teacher_of(of_teacher), rule["kind"])
                own = copies[position : position + len(logits)]
                position += len(logits)
                records += np.repeat(examples.numpy(), own).tolist()
                answers += np.repeat(_serialized(fingerprints(examples).numpy(), logits), own).tolist()
            name = os.path.basename(file)
            _write(os.path.join(split_folder(pseudo_labelled.uri, TRANSFER), name), records)
            _write(os.path.join(split_folder(targets.uri, TRANSFER), name + ONLY_BLOCK), answers)
            written[TRANSFER] += len(records)

        written[TRAIN] = 0
        for file in files_of("examples", TRAIN):
            answers = []
            for batch in read([file]).batch(RECORDS_AT_ONCE):
                _, labels, _ = parser(batch)
                answers += _serialized(fingerprints(batch).numpy(), certain_logits(labels.numpy(), classes)).tolist()
            _write(os.path.join(split_folder(targets.uri, TRAIN), os.path.basename(file) + ONLY_BLOCK), answers)
            written[TRAIN] += len(answers)
        sizes = {split: size_in_bytes(split_folder(targets.uri, split)) for split in written}
        teacher = " and ".join(card.teachers)
        SoftTargetsCard([teacher], "float32", {LOGITS: [1, classes]}, sum(written.values()), sizes).write(targets.uri)


def _serialized(keys: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns records of targets, bytes [examples], as an array of objects: strings would lose trailing zeros."""
    records = np.empty(len(keys), object)
    for number, (key, row) in enumerate(zip(keys, logits, strict=True)):
        example = tf.train.Example()
        example.features.feature[PREFIX + KEY].int64_list.value.append(key)
        example.features.feature[PREFIX + LOGITS].float_list.value.extend(row)
        records[number] = example.SerializeToString()
    return records


def _write(path: str, records: Iterable[bytes]) -> None:
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for record in records:
            writer.write(record)


def _summary(confidence: np.ndarray, likeliest: np.ndarray, copies: np.ndarray, rule: dict[str, Any]) -> str:
    """Returns one line about the choice, for the run's output."""
    chosen, confident = copies > 0, confidence >= rule["min_confidence"]
    line = (
        f"pseudo-labels, {rule['kind']}: {confident.sum():,} of {len(copies):,} unlabelled examples have a "
        f"confidence of at least {rule['min_confidence']:g}"
    )
    if rule["balance"]:
        counts = np.bincount(likeliest[chosen], weights=copies[chosen])
        present = counts[counts > 0]
        line += (
            f"; took {present[0]:.0f} of each of {len(present)} classes, {copies[chosen].sum() - chosen.sum():,} of "
            "them copies"
        )
    return line
