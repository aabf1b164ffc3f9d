"""Evaluates all models of the comparison with TFMA in one pass; TFX's Evaluator takes a candidate and one baseline."""

from collections.abc import Sequence

from tensorflow_model_analysis.proto import config_pb2
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts
from tfx.utils import proto_utils

from stillhouse.components.base import declare, fill
from stillhouse.components.evaluator.executor import EvaluatorParameters, Executor


class Evaluator(base_beam_component.BaseBeamComponent):
    """Computes the metrics of every model on the eval split, overall and slice by slice."""

    # Inputs model_1.. are added.
    SPEC_CLASS = declare(
        "EvaluatorSpec",
        EvaluatorParameters,
        inputs={"examples": standard_artifacts.Examples},
        outputs={"evaluation": standard_artifacts.ModelEvaluation},
    )
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        models: Sequence[BaseChannel],
        names: Sequence[str],
        examples: BaseChannel,
        eval_config: config_pb2.EvalConfig,
    ):
        """Builds the node.

        Args:
          models: Model channels; a model that does not exist yet, the pushed one at first, is left out.
          names: of the models; the evaluation notes the fingerprint of "Student".
          examples: raw ones, with the split eval.
          eval_config: metrics and slices; its only model spec holds for every model.
        """
        parameters = EvaluatorParameters(names=list(names), eval_config=proto_utils.proto_to_json(eval_config))
        super().__init__(spec=fill(type(self), parameters, model=list(models), examples=examples))
