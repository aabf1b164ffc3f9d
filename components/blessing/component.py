"""The stock Evaluator blesses by one baseline; the student has to pass a gate for each of several."""

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
        inputs={
            "model": standard_artifacts.Model,
            "evaluation": standard_artifacts.ModelEvaluation,
            "predictions": standard_artifacts.InferenceResult,
        },
        outputs={"blessing": standard_artifacts.ModelBlessing},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        gates: Sequence[Gate],
        evaluation: BaseChannel,
        predictions: BaseChannel,
        fidelity: FidelityRule | None = None,
    ):
        """Builds the node.

        Args:
          model: the student.
          gates: one for each model that the student is compared with.
          evaluation: of all models that the gates compare.
          predictions: of all models that the gates compare.
          fidelity: the gate on the student's agreement with its teacher; None: none.
        """
        super().__init__(
            spec=fill(
                type(self),
                BlessingParameters(gates=list(gates), fidelity=fidelity),
                model=model,
                evaluation=evaluation,
                predictions=predictions,
            )
        )
