"""One pass of TFMA over the eval examples, which asks every model."""

from collections.abc import Sequence
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, proto_utils

from stillhouse.components import multi_label_metrics, ranking_metrics
from stillhouse.components.base import Parameters, existing_models
from stillhouse.components.checked_model import note_fingerprint
from stillhouse.components.evaluation import STUDENT
from stillhouse.components.evaluator.missing_values import extractors
from stillhouse.modules.pushes.versions import model_fingerprint

# Metrics of ours, which TFMA imports by name; what they compute is part of the code of an evaluation.
METRICS = (multi_label_metrics, ranking_metrics)


class EvaluatorParameters(Parameters):
    """`names` are the models', in the order of the inputs; `eval_config` is TFMA's, as JSON, with one model spec."""

    names: list[str]
    eval_config: str


class Executor(base_beam_executor.BaseBeamExecutor):
    """Evaluates every model that exists; examples without a value of a slice column form a slice of their own."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["evaluation"], which tells by its fingerprint which student it is about."""
        parameters = EvaluatorParameters.read(exec_properties)
        paths = existing_models(input_dict, parameters.names)
        fingerprint = model_fingerprint(paths[STUDENT])
        config = _config_of(parameters.eval_config, list(paths))
        models = [
            tfma.default_eval_shared_model(path, model_name=spec.name, eval_config=config)
            for spec, path in zip(config.model_specs, paths.values(), strict=True)
        ]
        tfxio_of = tfxio_utils.get_tfxio_factory_from_artifact(
            input_dict["examples"], ["Evaluator"], raw_record_column_name=tfma.ARROW_INPUT_COLUMN
        )
        examples = tfxio_of(io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], "eval")))
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        with self._make_beam_pipeline() as pipeline:
            (
                pipeline
                | "ReadExamples" >> examples.BeamSource()
                | "Evaluate"
                >> tfma.ExtractEvaluateAndWriteResults(
                    eval_shared_model=models,
                    eval_config=config,
                    extractors=extractors(models, config),
                    output_path=evaluation.uri,
                )
            )
        note_fingerprint(evaluation, fingerprint)


def _config_of(text: str, names: Sequence[str]) -> config_pb2.EvalConfig:
    """Returns the configuration with a model spec for each of the models, by the names that TFMA gives them."""
    config = config_pb2.EvalConfig()
    proto_utils.json_to_proto(text, config)
    (spec,) = config.model_specs
    del config.model_specs[:]
    for name in names:
        config.model_specs.add().CopyFrom(spec)
        config.model_specs[-1].name = name
    return tfma.utils.update_eval_config_with_defaults(config)
