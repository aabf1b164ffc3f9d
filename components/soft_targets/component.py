"""Runs the teachers once, so that any number of students, temperatures and objectives train without a teacher."""

from collections.abc import Sequence

from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.numbered_inputs import numbered, with_numbered_inputs
from stillhouse.components.soft_targets.executor import Executor


class SoftTargetsSpec(types.ComponentSpec):
    """Inputs teacher_1 .. teacher_N are added for the N at hand."""

    PARAMETERS = {
        "label": ExecutionParameter(type=str),
        "head": ExecutionParameter(type=str),
        "dtype": ExecutionParameter(type=str),
        "batch_size": ExecutionParameter(type=int),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transfer_examples": ChannelParameter(type=standard_artifacts.Examples, optional=True),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
    }
    OUTPUTS = {"soft_targets": ChannelParameter(type=standard_artifacts.Examples)}


class SoftTargets(base_beam_component.BaseBeamComponent):
    """Writes the teachers' logits for the train split, and for transfer examples if there are any."""

    SPEC_CLASS = SoftTargetsSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        teachers: Sequence[types.BaseChannel],
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        label: str,
        head: str,
        dtype: str,
        batch_size: int,
        code: str,
        transfer_examples: types.BaseChannel | None = None,
    ):
        """Builds the node.

        Args:
          teachers: Model channels.
          examples: transformed examples with the split train.
          transform_graph: the Transform's output.
          label: name of the label feature.
          head: classification, multi_label or regression.
          dtype: float32 or float16, of the logits in the files.
          batch_size: examples that teachers are asked about at a time.
          code: fingerprint of the code, for the cache.
          transfer_examples: transformed examples without labels, with the split transfer.
        """
        spec_class = with_numbered_inputs(self.SPEC_CLASS, teacher=(len(teachers), standard_artifacts.Model))
        super().__init__(
            spec=spec_class(
                label=label,
                head=head,
                dtype=dtype,
                batch_size=batch_size,
                code=code,
                examples=examples,
                transfer_examples=transfer_examples,
                transform_graph=transform_graph,
                soft_targets=types.Channel(type=standard_artifacts.Examples),
                **numbered("teacher", teachers),
            )
        )
