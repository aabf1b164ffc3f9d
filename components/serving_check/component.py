"""A check of what will be served. TFX's InfraValidator needs a container engine; this needs a process."""

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.serving_check.executor import Executor


class ServingCheckSpec(types.ComponentSpec):
    """`evaluation` is any Evaluator's whose candidate is the model."""

    PARAMETERS = {"label": ExecutionParameter(type=str), "code": ExecutionParameter(type=str)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingCheck(base_component.BaseComponent):
    """Blesses a model that gives, served in a fresh process, the metrics that the Evaluator saw."""

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        evaluation: types.BaseChannel,
        label: str,
        code: str,
    ):
        """Builds the node; `examples` are the raw ones, `code` is the fingerprint that the cache sees."""
        super().__init__(
            spec=ServingCheckSpec(
                label=label,
                code=code,
                model=model,
                examples=examples,
                evaluation=evaluation,
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )
