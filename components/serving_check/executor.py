"""Serves the exported model in a fresh process and compares its metrics with the evaluation's."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from stillhouse.components.base import Parameters
from stillhouse.components.checked_model import note_fingerprint
from stillhouse.components.evaluation import EXAMPLES, ModelMetrics, read_student
from stillhouse.modules.errors import MachineError
from stillhouse.modules.models import serving
from stillhouse.modules.pushes.versions import model_fingerprint

DECISION = "decision.json"
# Both sides compute in float32, in batches of different sizes.
RELATIVE_TOLERANCE = 1e-3
ABSOLUTE_TOLERANCE = 1e-5


def compare(served: dict[str, float], evaluated: dict[str, float]) -> str | None:
    """Returns the difference between the served and the evaluated model's metrics, in words; None: no difference."""
    if served[EXAMPLES] != evaluated[EXAMPLES]:
        return f"served {served[EXAMPLES]:.0f} examples, evaluated {evaluated[EXAMPLES]:.0f}"
    for metric in sorted(set(served) - {EXAMPLES}):
        if not math.isclose(served[metric], evaluated[metric], rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE):
            return f"{metric} served {served[metric]:.6f}, evaluated {evaluated[metric]:.6f}"
    return None


@dataclass(frozen=True)
class Served:
    """What a fresh process measured through the serving signature, or why the model cannot be served."""

    metrics: dict[str, float] | None
    refused: str | None = None


def serve_in_fresh_process(saved_model: str, examples: str, label: str) -> Served:
    """Serves the model in a process of its own.

    Raises:
      MachineError: the process failed for another reason than the model; then nothing is known about the model.
    """
    command = [sys.executable, "-m", serving.__name__, saved_model, examples, label]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        last_words = lines[-1] if lines else "it said nothing"
        raise MachineError(
            f"the serving check's process ended with exit code {process.returncode} and measured nothing: "
            f"{last_words}; the student is neither passed nor refused; run again"
        )
    answer = json.loads(process.stdout.splitlines()[-1])
    return Served(answer.get("metrics"), answer.get("refused"))


def decide(served: Served, evaluated: ModelMetrics) -> tuple[bool, str]:
    """Returns whether the model may be served, and the reason."""
    if served.metrics is None:
        return False, f"the exported model cannot be served: {served.refused}"
    difference = compare(served.metrics, evaluated.overall)
    if difference:
        return False, f"the exported model differs from the evaluated one: {difference}"
    count = served.metrics[EXAMPLES]
    return True, f"served {count:.0f} raw examples in a fresh process; metrics match the evaluation"


class ServingCheckParameters(Parameters):
    """`label` names the label column, which requests do not have."""

    label: str


class Executor(base_executor.BaseExecutor):
    """Writes an InfraBlessing, as InfraValidator would, and decision.json into it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["blessing"]."""
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))
        examples = io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "eval"))
        evaluated = read_student(artifact_utils.get_single_uri(input_dict["evaluation"]))
        label = ServingCheckParameters.read(exec_properties).label
        fingerprint = model_fingerprint(model)
        passed, reason = decide(serve_in_fresh_process(model, examples, label), evaluated)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        io_utils.write_string_file(
            os.path.join(blessing.uri, DECISION), json.dumps({"name": "serving", "passed": passed, "reason": reason})
        )
        # File names and property as in tfx.components.infra_validator.executor.
        io_utils.write_string_file(os.path.join(blessing.uri, "INFRA_BLESSED" if passed else "INFRA_NOT_BLESSED"), "")
        blessing.set_int_custom_property("blessed", int(passed))
        note_fingerprint(blessing, fingerprint)
