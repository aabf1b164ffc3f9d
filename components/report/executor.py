"""Writes comparison.json and report.html."""

import json
import os
from importlib import metadata
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from stillhouse.components.base import Parameters, numbered_artifacts
from stillhouse.components.blessing.executor import DECISIONS
from stillhouse.components.dark_knowledge.executor import DARK_KNOWLEDGE
from stillhouse.components.evaluation import EXAMPLES, OVERALL, read_evaluation
from stillhouse.components.report.data import data_of
from stillhouse.components.report.page import DETAILS, PAGE, render
from stillhouse.components.report.predictions import calibration, confusion_matrix, disagreements, image_of
from stillhouse.components.serving_check.executor import DECISION
from stillhouse.modules.models import saved_models
from stillhouse.modules.models.card import read_card
from stillhouse.modules.models.serving import (
    labels_of,
    probabilities_of,
    read_records,
    single_example_latencies,
    size_in_bytes,
    without_feature,
)

COMPARISON = "comparison.json"
MAX_EXAMPLES = 20_000  # of the eval split, whose predictions are looked at
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
    """A model of the comparison: its name, its role, and which of its evaluation's models it is."""

    name: str
    role: str
    side: str


class ReportParameters(Parameters):
    """`settings` are those of the pipeline as JSON; `commit` is "" outside of version control."""

    pipeline: str
    label: str
    models: list[ComparedRow]
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
        parameters, rows = ReportParameters.read(exec_properties), []
        evaluations = numbered_artifacts(input_dict, "evaluation")
        for row, model, evaluation in zip(
            parameters.models, numbered_artifacts(input_dict, "model"), evaluations, strict=True
        ):
            metrics = read_evaluation(evaluation.uri).get(row.side)
            if metrics is not None:  # None: the pushed model, before anything was pushed
                rows.append((row, path_utils.serving_model_path(model.uri), metrics))

        files = io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "eval"))
        records = list(read_records(files).take(MAX_EXAMPLES).as_numpy_iterator())
        label = parameters.label
        cards = [read_card(path) for _, path, _ in rows]
        loaded = [saved_models.load(path) for _, path, _ in rows]
        latencies = single_example_latencies(loaded, without_feature(records[0], label))
        models = []
        for (row, path, metrics), card, (median, slow) in zip(rows, cards, latencies, strict=True):
            models.append(
                {
                    "name": row.name,
                    "role": row.role,
                    "metrics": {name: value for name, value in metrics.overall.items() if name != EXAMPLES},
                    "intervals": {
                        n: interval for n, interval in metrics.intervals.get(OVERALL, {}).items() if n != EXAMPLES
                    },
                    "parameters": card["parameters"],
                    # None of them for a model that was not trained here, or is an ensemble.
                    **{name: card.get(name) for name in TRAINED},
                    "bytes": size_in_bytes(path),
                    "latency_ms": round(median, 3),
                    "latency_p95_ms": round(slow, 3),
                    "slices": {name: values for name, values in metrics.slices.items() if name != OVERALL},
                }
            )
        pushed, settings = input_dict["pushed_model"][0], json.loads(parameters.settings)
        comparison = {
            "pipeline": parameters.pipeline,
            "eval_examples": int(rows[0][2].overall[EXAMPLES]),
            "models": models,
            "gates": [
                *_read_json(input_dict["blessing"][0], DECISIONS),
                _read_json(input_dict["infra_blessing"][0], DECISION),
            ],
            "pushed": pushed.get_string_custom_property("pushed_destination")
            if pushed.get_int_custom_property("pushed")
            else None,
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
            "commit": parameters.commit,
            "data": data_of(input_dict, has_spans="{SPAN}" in settings["data"]["path"]),
        }
        if input_dict.get("dark_knowledge"):
            details["dark_knowledge"] = _read_json(input_dict["dark_knowledge"][0], DARK_KNOWLEDGE)
        if cards[0]["head"] == "classification":
            details |= look_at_predictions(models, loaded, cards[0]["class_names"], records, label)
        for output, name, content in (
            ("comparison", COMPARISON, json.dumps(comparison, indent=1)),
            ("comparison", DETAILS, json.dumps(details)),
            ("page", PAGE, render(comparison, details)),
        ):
            folder = artifact_utils.get_single_uri(output_dict[output])
            io_utils.write_string_file(os.path.join(folder, name), content)


def look_at_predictions(
    models: list[dict[str, Any]], loaded: list[Any], class_names: list[str] | None, records: list[bytes], label: str
) -> dict[str, Any]:
    """Returns confusion and calibration of each model, and where the student and its teacher (ensemble) disagree.

    Args:
      models: rows of the comparison.
      loaded: their SavedModels, classifiers.
      class_names: by class; None: their numbers.
      records: raw examples, with their labels.
      label: name of the label column.
    """
    labels = labels_of(loaded[0], records)
    probabilities = {
        model["name"]: probabilities_of(saved_model, records, label)
        for model, saved_model in zip(models, loaded, strict=True)
    }
    classes = [str(name) for name in class_names or range(next(iter(probabilities.values())).shape[1])]
    by_role = {model["role"]: model["name"] for model in models}
    student, reference = probabilities[by_role["student"]], probabilities[by_role.get("ensemble") or by_role["teacher"]]
    differing = disagreements(labels, student, reference)
    examples = []
    for number in differing.pop("telling"):
        ours, theirs = int(student[number].argmax()), int(reference[number].argmax())
        examples.append(
            {
                "number": number,
                "label": classes[labels[number]],
                "student": classes[ours],
                "student_probability": float(student[number, ours]),
                "other": classes[theirs],
                "other_probability": float(reference[number, theirs]),
                "image": image_of(_features(records[number], label)),
            }
        )
    return {
        "classes": classes,
        "confusion": {name: confusion_matrix(labels, predicted) for name, predicted in probabilities.items()},
        "calibration": {name: calibration(labels, predicted) for name, predicted in probabilities.items()},
        "disagreements": differing | {"examples": examples},
    }


def _features(record: bytes, label: str) -> dict[str, list]:
    features = tf.train.Example.FromString(record).features.feature
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in features.items()
        if name != label and feature.WhichOneof("kind")
    }
