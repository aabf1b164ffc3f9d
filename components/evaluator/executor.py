"""Runs the stock evaluation, without the baseline if there is no model in it."""

from typing import Any

from tfx import types
from tfx.components.evaluator import executor
from tfx.dsl.io import fileio
from tfx.types.standard_component_specs import MODULE_PATH_KEY
from tfx.utils import path_utils

from stillhouse.components import multi_label_metrics, ranking_metrics
from stillhouse.components.checked_model import note_fingerprint
from stillhouse.components.evaluator import missing_values
from stillhouse.modules.pushes.versions import model_fingerprint

BASELINE = "baseline_model"
# Metrics of ours, which TFMA imports by name; what they compute is part of the code of an evaluation.
METRICS = (multi_label_metrics, ranking_metrics)


class Executor(executor.Executor):
    """The stock executor ignores change thresholds when it gets no baseline; a first push needs just that."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """As the stock executor's, with a slice of the examples that have no value of a slice column.

        The evaluation also tells by its fingerprint which model it is about.
        """
        fingerprint = model_fingerprint(path_utils.serving_model_path(input_dict["model"][0].uri))
        baseline = input_dict.get(BASELINE)
        if baseline and not fileio.exists(path_utils.serving_model_dir(baseline[0].uri)):
            input_dict = {key: artifacts for key, artifacts in input_dict.items() if key != BASELINE}
        extractors = {MODULE_PATH_KEY: missing_values.__name__}
        super().Do(input_dict, output_dict, exec_properties | extractors)
        note_fingerprint(output_dict["evaluation"][0], fingerprint)
