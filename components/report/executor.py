"""Writes comparison.json."""

import json
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.blessing.executor import DECISIONS
from components.evaluation import EXAMPLES, OVERALL, read_evaluation
from components.numbered_inputs import numbered_artifacts
from components.serving_check.executor import DECISION
from modules.model_card import read_card
from modules.serving import read_records, single_example_latency, size_in_bytes, without_feature

COMPARISON = "comparison.json"
TRAINED = (
    "strategy",
    "replicas",
    "examples_per_second",
    "input_share",
    "restarts",
    "warm_started",
    "memory",
)  # of the model card


def _read_json(artifact: types.Artifact, name: str) -> Any:
    with fileio.open(os.path.join(artifact.uri, name)) as file:
        return json.load(file)


class Executor(base_executor.BaseExecutor):
    """Gathers what the other nodes left, measures sizes and latencies, and writes one file."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["comparison"]/comparison.json, as docs/comparison.md describes it, without run_id."""
        rows = []
        evaluations = numbered_artifacts(input_dict, "evaluation")
        for row, model, evaluation in zip(
            json.loads(exec_properties["models"]), numbered_artifacts(input_dict, "model"), evaluations, strict=True
        ):
            metrics = read_evaluation(evaluation.uri).get(row["side"])
            if metrics is not None:  # None: the pushed model, before anything was pushed
                rows.append((row, path_utils.serving_model_path(model.uri), metrics))

        files = io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "eval"))
        example = next(iter(read_records(files).take(1).as_numpy_iterator()))
        request = without_feature(example, exec_properties["label"])
        latencies = single_example_latency([path for _, path, _ in rows], request)
        models = []
        for (row, path, metrics), latency in zip(rows, latencies, strict=True):
            card = read_card(path)
            models.append(
                {
                    "name": row["name"],
                    "role": row["role"],
                    "metrics": {name: value for name, value in metrics.overall.items() if name != EXAMPLES},
                    "parameters": card["parameters"],
                    # None of them for a model that was not trained here, or is an ensemble.
                    **{name: card.get(name) for name in TRAINED},
                    "bytes": size_in_bytes(path),
                    "latency_ms": round(latency, 3),
                    "slices": {name: values for name, values in metrics.slices.items() if name != OVERALL},
                }
            )
        pushed = input_dict["pushed_model"][0]
        comparison = {
            "pipeline": exec_properties["pipeline"],
            "eval_examples": int(rows[0][2].overall[EXAMPLES]),
            "models": models,
            "gates": [
                *_read_json(input_dict["blessing"][0], DECISIONS),
                _read_json(input_dict["infra_blessing"][0], DECISION),
            ],
            "pushed": pushed.get_string_custom_property("pushed_destination")
            if pushed.get_int_custom_property("pushed")
            else None,
        }
        path = os.path.join(artifact_utils.get_single_uri(output_dict["comparison"]), COMPARISON)
        io_utils.write_string_file(path, json.dumps(comparison, indent=1))
