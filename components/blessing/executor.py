"""Reads the evaluation and the predictions, and writes the blessing."""

import json
import os
from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from stillhouse.components.base import Parameters
from stillhouse.components.blessing.gates import FidelityRule, Gate, decide, decide_fidelity
from stillhouse.components.checked_model import checked_fingerprint, note_fingerprint
from stillhouse.components.evaluation import OVERALL, STUDENT, read_evaluation
from stillhouse.components.predictions.fidelity import fidelity, slice_fidelities
from stillhouse.components.predictions.paired import CONFIDENCE, PairedChange, PairedTests
from stillhouse.components.predictions.table import PredictionTable, read_predictions

DECISIONS = "decisions.json"


class BlessingParameters(Parameters):
    """The gates; `fidelity` is None without that gate."""

    gates: list[Gate]
    fidelity: FidelityRule | None


class Executor(base_executor.BaseExecutor):
    """Decides every gate; the decisions go into the blessing artifact as decisions.json."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["blessing"] as the stock Evaluator does."""
        parameters = BlessingParameters.read(exec_properties)
        evaluation = artifact_utils.get_single_instance(input_dict["evaluation"])
        metrics = read_evaluation(evaluation.uri)
        table = read_predictions(artifact_utils.get_single_uri(input_dict["predictions"]))
        decisions = []
        for gate in parameters.gates:
            other = metrics.get(gate.other)  # None: nothing was pushed yet
            paired = paired_changes(gate, table) if other else {}
            decisions.append(decide(gate, metrics[STUDENT], other, paired, table.empty_columns()))
        if parameters.fidelity:
            rule = parameters.fidelity
            slices = slice_fidelities(table, rule.other, rule.slice_columns)
            decisions.append(decide_fidelity(rule, fidelity(table, rule.other), slices))
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
        note_fingerprint(blessing, checked_fingerprint(input_dict["model"][0], [evaluation]))


def paired_changes(gate: Gate, table: PredictionTable) -> dict[str, PairedChange | None]:
    """Returns the student's paired change on OVERALL and every slice, at the gate's confidence or 95 %."""

    def change(part: PredictionTable) -> PairedChange | None:
        tests = PairedTests(part, gate.metric, gate.lower_is_better)
        return tests.change(STUDENT, gate.other, gate.confidence or CONFIDENCE)

    changes = {OVERALL: change(table)}
    if gate.min_change_per_slice is not None:
        for name, rows in table.slice_rows(gate.slice_columns).items():
            if len(rows) >= gate.min_slice_examples:
                changes[name] = change(table.part(rows))
    return changes
