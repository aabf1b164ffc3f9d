"""The stock Pusher honours one ModelBlessing; the student has to pass a gate per Evaluator."""

from collections.abc import Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.blessing.executor import BlessingParameters, Executor
from stillhouse.components.blessing.gates import FidelityRule, Gate


class Blessing(base_component.BaseComponent):
    """Blesses the student if every gate passes, overall and on every slice that is large enough to judge."""

    SPEC_CLASS = declare(
        "BlessingSpec",
        BlessingParameters,
        inputs={"model": standard_artifacts.Model, "predictions": standard_artifacts.InferenceResult},
        outputs={"blessing": standard_artifacts.ModelBlessing},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        gates: Sequence[Gate],
        evaluations: Sequence[BaseChannel],
        blessings: Sequence[BaseChannel],
        predictions: BaseChannel,
        fidelity: FidelityRule | None = None,
    ):
        """Builds the node.

        Args:
          model: the student.
          gates: one per Evaluator.
          evaluations, blessings: the Evaluators' outputs, in the gates' order.
          predictions: of all models that the gates compare.
          fidelity: the gate on the student's agreement with its teacher; None: none.
        """
        super().__init__(
            spec=fill(
                type(self),
                BlessingParameters(gates=list(gates), fidelity=fidelity),
                model=model,
                predictions=predictions,
                evaluation=evaluations,
                evaluator_blessing=blessings,
            )
        )
