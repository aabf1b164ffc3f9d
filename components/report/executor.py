"""Writes comparison.json and report.html."""

import itertools
import json
import math
import os
from dataclasses import asdict
from importlib import metadata
from typing import Any

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from stillhouse.components.base import TAKEN_FROM, Parameters, existing_models
from stillhouse.components.blessing.executor import DECISIONS
from stillhouse.components.dark_knowledge.executor import DARK_KNOWLEDGE
from stillhouse.components.evaluation import (
    EXAMPLES,
    LOWER_IS_BETTER,
    MISSING,
    OVERALL,
    STUDENT,
    metric_name,
    read_evaluation,
)
from stillhouse.components.predictions.fidelity import never_predicted
from stillhouse.components.predictions.paired import PairedTests
from stillhouse.components.predictions.table import PredictionTable, read_predictions
from stillhouse.components.report.data import data_of, shift_warnings, shifts_of
from stillhouse.components.report.distillation import baseline_of, distillation_of, fidelity_of
from stillhouse.components.report.page import DETAILS, PAGE, render
from stillhouse.components.report.predictions import calibration, confusion_matrix, disagreements, image_of
from stillhouse.components.serving_check.executor import DECISION
from stillhouse.modules.models import saved_models
from stillhouse.modules.models.card import read_card
from stillhouse.modules.models.serving import (
    read_records,
    single_example_latencies,
    size_in_bytes,
    without_feature,
)

COMPARISON = "comparison.json"
LOWER = {metric_name(name) for name in LOWER_IS_BETTER}
TRAINED = (
    "strategy",
    "replicas",
    "examples_per_second",
    "input_share",
    "restarts",
    "warm_started",
    "memory",
)  # of the model card


class ComparedRow(Parameters):
    """A model of the comparison."""

    name: str
    role: str


class ReportParameters(Parameters):
    """`settings` are those of the pipeline as JSON; `commit` is "" outside of version control."""

    pipeline: str
    label: str
    models: list[ComparedRow]
    gate_metric: str
    settings: str
    commit: str


def _read_json(artifact: types.Artifact, name: str) -> Any:
    with fileio.open(os.path.join(artifact.uri, name)) as file:
        return json.load(file)


class Executor(base_executor.BaseExecutor):
    """Gathers what the other nodes left, measures sizes and latencies, and looks at what the models predict."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes comparison.json, as docs/comparison.md describes it, without run_id, details.json and report.html."""
        parameters, shifts = ReportParameters.read(exec_properties), shifts_of(input_dict)
        evaluated = read_evaluation(artifact_utils.get_single_uri(input_dict["evaluation"]))
        paths = existing_models(input_dict, [row.name for row in parameters.models])
        rows = [(row, paths[row.name], evaluated[row.name]) for row in parameters.models if row.name in paths]
        files = io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "eval"))
        first = next(iter(read_records(files).take(1).as_numpy_iterator()))
        table = read_predictions(artifact_utils.get_single_uri(input_dict["predictions"]))
        label = parameters.label
        cards = [read_card(path) for _, path, _ in rows]
        loaded = [saved_models.load(path) for _, path, _ in rows]
        latencies = single_example_latencies(loaded, without_feature(first, label))
        decisions = _read_json(input_dict["blessing"][0], DECISIONS)
        undefined = {name for decision in decisions for name in (decision["slices"] or {}).get("undefined", [])}
        models = []
        for (row, path, metrics), card, (median, slow) in zip(rows, cards, latencies, strict=True):
            models.append(
                {
                    "name": row.name,
                    "role": row.role,
                    "metrics": _defined(metrics.overall, {EXAMPLES}),
                    "intervals": {
                        name: interval
                        for name, interval in metrics.intervals.get(OVERALL, {}).items()
                        if name != EXAMPLES and all(map(math.isfinite, interval))
                    },
                    "parameters": card["parameters"],
                    # None of them for a model that was not trained here, or is an ensemble.
                    **{name: card.get(name) for name in TRAINED},
                    "bytes": size_in_bytes(path),
                    "latency_ms": round(median, 3),
                    "latency_p95_ms": round(slow, 3),
                    "slices": {
                        name: _defined(values, {parameters.gate_metric} if name in undefined else set())
                        for name, values in metrics.slices.items()
                        if name != OVERALL
                    },
                }
            )
        reference = next(row.name for role in ("ensemble", "teacher") for row, *_ in rows if row.role == role)
        names = [row.name for row, *_ in rows]
        card_of = {row.role: card for (row, *_), card in zip(rows, cards, strict=True)}
        baseline = next((row.name for row, *_ in rows if row.role == "baseline"), None)
        tests = PairedTests(table, parameters.gate_metric, parameters.gate_metric in LOWER)
        pushed, settings = input_dict["pushed_model"][0], json.loads(parameters.settings)
        compared_fidelity = fidelity_of(table, reference, settings["evaluation"]["slices"])
        comparison = {
            "pipeline": parameters.pipeline,
            "eval_examples": int(rows[0][2].overall[EXAMPLES]),
            "models": models,
            "gates": [
                *decisions,
                _read_json(input_dict["infra_blessing"][0], DECISION),
            ],
            "pushed": pushed.get_string_custom_property("pushed_destination")
            if pushed.get_int_custom_property("pushed")
            else None,
            "pairs": compared_pairs(tests, names, parameters.gate_metric),
            "fidelity": compared_fidelity,
            "distillation": distillation_of(
                table,
                tests,
                parameters.gate_metric,
                reference,
                baseline,
                card_of["student"],
                settings,
                compared_fidelity["agreement"] if compared_fidelity else None,
            ),
            "baseline": baseline_of(card_of["baseline"], card_of["student"], settings) if baseline else None,
            "warnings": _warnings(table, reference) + shift_warnings(shifts),
            "settings": settings,
        }
        details = {
            "histories": {
                model["name"]: card["history"] for model, card in zip(models, cards, strict=True) if card.get("history")
            },
            "min_slice_examples": settings["evaluation"]["gates"]["teacher"]["min_slice_examples"],
            "versions": {name: metadata.version(name) for name in ("stillhouse", "tfx", "tensorflow")},
            "artifacts": {
                name: [artifact.uri for artifact in artifacts] for name, artifacts in sorted(input_dict.items())
            },
            "taken_from": {
                artifact.uri: artifact.get_string_custom_property(TAKEN_FROM)
                for artifacts in input_dict.values()
                for artifact in artifacts
                if artifact.has_custom_property(TAKEN_FROM)
            },
            "commit": parameters.commit,
            "data": data_of(input_dict, shifts, has_spans="{SPAN}" in settings["data"]["path"]),
        }
        if input_dict.get("dark_knowledge"):
            details["dark_knowledge"] = _read_json(input_dict["dark_knowledge"][0], DARK_KNOWLEDGE)
        if cards[0]["head"] == "classification":
            details |= look_at_predictions(table, names, reference, files, label)
        for output, name, content in (
            ("comparison", COMPARISON, json.dumps(comparison, indent=1, allow_nan=False)),
            ("comparison", DETAILS, json.dumps(details)),
            ("page", PAGE, render(comparison, details)),
        ):
            folder = artifact_utils.get_single_uri(output_dict[output])
            io_utils.write_string_file(os.path.join(folder, name), content)


def _defined(metrics: dict[str, float], without: set[str]) -> dict[str, float]:
    """Returns the metrics that have a value, without some; what is undefined is left out."""
    return {name: value for name, value in metrics.items() if name not in without and math.isfinite(value)}


def compared_pairs(tests: PairedTests, names: list[str], metric: str) -> list[dict[str, Any]]:
    """Returns the paired tests of all pairs of models, the student's first.

    Args:
      tests: of the metric, between the models.
      names: of the models, in the order of the comparison.
      metric: short name.
    """
    ordered = sorted(names, key=lambda name: name != STUDENT)  # stable: the others keep their order
    pairs = []
    for number, model in enumerate(ordered):
        for other in ordered[number + 1 :]:
            paired = tests.change(model, other)
            if paired:
                pairs.append(
                    {"model": model, "other": other, "metric": metric, **asdict(paired), "verdict": paired.verdict}
                )
    return pairs


def _warnings(table: PredictionTable, reference: str) -> list[str]:
    """Returns what no gate has decided on, in words."""
    warnings = []
    for name, (predicted, labelled) in never_predicted(table, reference).items():
        warnings.append(
            f"class {name}: the student never predicts it; {reference} does for {predicted:,} and {labelled:,} of "
            f"{len(table):,} eval examples have it"
        )
    for column in table.slices:
        missing = sum(cell == [MISSING] for cell in table.slices[column])
        if missing:
            warnings.append(
                f"slice {column}={MISSING}: {missing:,} of {len(table):,} eval examples have no value of {column}"
            )
    return warnings


def look_at_predictions(
    table: PredictionTable, names: list[str], reference: str, files: str, label: str
) -> dict[str, Any]:
    """Returns confusion and calibration of each model, and where the student and its teacher (ensemble) disagree.

    Args:
      table: predictions of classifiers.
      names: of the models, in the order of the comparison.
      reference: name of the teacher or the ensemble.
      files: pattern of the raw examples, in the table's order.
      label: name of the label column.
    """
    width = max(answers.shape[1] for answers in table.models.values())
    known = np.flatnonzero(table.known_labels(width))
    classes = table.classes or [str(number) for number in range(width)]
    labels, probabilities = table.labels[known], {name: table.models[name][known] for name in names}
    differing = disagreements(labels, probabilities[STUDENT], probabilities[reference])
    telling = [int(known[position]) for position in differing.pop("telling")]
    examples, features = [], _features_of(files, set(telling), label)
    for number in telling:
        ours, theirs = (int(table.models[name][number].argmax()) for name in (STUDENT, reference))
        examples.append(
            {
                "number": number,
                "label": classes[table.labels[number]],
                "student": classes[ours],
                "student_probability": float(table.models[STUDENT][number, ours]),
                "other": classes[theirs],
                "other_probability": float(table.models[reference][number, theirs]),
                "image": image_of(features[number]),
            }
        )
    return {
        "classes": classes,
        "confusion": {name: confusion_matrix(labels, predicted) for name, predicted in probabilities.items()},
        "calibration": {name: calibration(labels, predicted) for name, predicted in probabilities.items()},
        "disagreements": differing | {"examples": examples},
    }


def _features_of(files: str, numbers: set[int], label: str) -> dict[int, dict[str, list]]:
    """Returns the features of the examples at some positions."""
    if not numbers:
        return {}
    records = itertools.islice(read_records(files).as_numpy_iterator(), max(numbers) + 1)
    return {number: _features(record, label) for number, record in enumerate(records) if number in numbers}


def _features(record: bytes, label: str) -> dict[str, list]:
    features = tf.train.Example.FromString(record).features.feature
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in features.items()
        if name != label and feature.WhichOneof("kind")
    }
