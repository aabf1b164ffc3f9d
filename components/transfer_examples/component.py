"""The stock Transform wants every column of its schema, the label too; transfer data has no label."""

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.transfer_examples.executor import Executor


class TransferExamplesSpec(types.ComponentSpec):
    """Raw examples in, transformed examples out; one split, transfer."""

    PARAMETERS = {"label": ExecutionParameter(type=str), "code": ExecutionParameter(type=str)}
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
    }
    OUTPUTS = {"transformed_examples": ChannelParameter(type=standard_artifacts.Examples)}


class TransferExamples(base_beam_component.BaseBeamComponent):
    """Applies the Transform's graph to examples without labels."""

    SPEC_CLASS = TransferExamplesSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: types.BaseChannel, transform_graph: types.BaseChannel, label: str, code: str):
        """Builds the node; `examples` has the split transfer, `code` is the fingerprint that the cache sees."""
        super().__init__(
            spec=TransferExamplesSpec(
                label=label,
                code=code,
                examples=examples,
                transform_graph=transform_graph,
                transformed_examples=types.Channel(type=standard_artifacts.Examples),
            )
        )
