"""Reads the evaluations and writes the blessing."""

import json
import os
from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from stillhouse.components.base import Parameters, numbered_artifacts
from stillhouse.components.blessing.gates import Gate, decide
from stillhouse.components.evaluation import BASELINE, CANDIDATE, read_evaluation

DECISIONS = "decisions.json"


class BlessingParameters(Parameters):
    """The gates, in the order of the Evaluators."""

    gates: list[Gate]


class Executor(base_executor.BaseExecutor):
    """Decides every gate; the decisions go into the blessing artifact as decisions.json."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["blessing"] as the stock Evaluator does."""
        gates = BlessingParameters.read(exec_properties).gates
        evaluations = numbered_artifacts(input_dict, "evaluation")
        blessings = numbered_artifacts(input_dict, "evaluator_blessing")
        decisions = []
        for gate, evaluation, blessed in zip(gates, evaluations, blessings, strict=True):
            metrics = read_evaluation(evaluation.uri)
            decisions.append(
                decide(gate, model_utils.is_model_blessed(blessed), metrics[CANDIDATE], metrics.get(BASELINE))
            )
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        io_utils.write_string_file(
            os.path.join(blessing.uri, DECISIONS), json.dumps([decision.to_dict() for decision in decisions], indent=1)
        )
        passed = all(decision.passed for decision in decisions)
        name, value = (
            (constants.BLESSED_FILE_NAME, constants.BLESSED_VALUE)
            if passed
            else (constants.NOT_BLESSED_FILE_NAME, constants.NOT_BLESSED_VALUE)
        )
        io_utils.write_string_file(os.path.join(blessing.uri, name), "")
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
