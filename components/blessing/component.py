"""The stock Pusher honours one ModelBlessing; the student has to pass a gate per Evaluator."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.blessing.executor import Executor
from stillhouse.components.blessing.gates import Gate
from stillhouse.components.numbered_inputs import numbered, with_numbered_inputs


class BlessingSpec(types.ComponentSpec):
    """Inputs evaluation_1.., evaluator_blessing_1.. are added, one pair per gate and in the gates' order."""

    PARAMETERS = {"gates": ExecutionParameter(type=str), "code": ExecutionParameter(type=str)}
    INPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.ModelBlessing)}


class Blessing(base_component.BaseComponent):
    """Blesses the student if every gate passes, overall and on every slice that is large enough to judge."""

    SPEC_CLASS = BlessingSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        gates: Sequence[Gate],
        evaluations: Sequence[types.BaseChannel],
        blessings: Sequence[types.BaseChannel],
        code: str,
    ):
        """Builds the node.

        Args:
          model: the student.
          gates: one per Evaluator.
          evaluations, blessings: the Evaluators' outputs, in the gates' order.
          code: fingerprint of the code, for the cache.
        """
        spec_class = with_numbered_inputs(
            self.SPEC_CLASS,
            evaluation=(len(gates), standard_artifacts.ModelEvaluation),
            evaluator_blessing=(len(gates), standard_artifacts.ModelBlessing),
        )
        super().__init__(
            spec=spec_class(
                gates=json.dumps([asdict(gate) for gate in gates]),
                code=code,
                model=model,
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
                **numbered("evaluation", evaluations),
                **numbered("evaluator_blessing", blessings),
            )
        )
