"""Chooses among unlabelled examples those to learn from, and makes targets of the teacher's predictions for them."""

from typing import Any

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.pseudo_labels.executor import Executor, PseudoLabelsParameters
from stillhouse.modules.settings import WeightedEnsemble


class PseudoLabels(base_component.BaseComponent):
    """Filters and balances unlabelled examples by the teacher's confidence, and writes targets for all examples.

    Soft targets and the examples they belong to in; fewer (or doubled) transfer examples and their targets out.
    """

    SPEC_CLASS = declare(
        "PseudoLabelsSpec",
        PseudoLabelsParameters,
        inputs={
            "examples": standard_artifacts.Examples,
            "transfer_examples": standard_artifacts.Examples,
            "transform_graph": standard_artifacts.TransformGraph,
            "soft_targets": standard_artifacts.Examples,
        },
        outputs={"pseudo_labelled": standard_artifacts.Examples, "targets": standard_artifacts.Examples},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        transfer_examples: BaseChannel,
        transform_graph: BaseChannel,
        soft_targets: BaseChannel,
        label: str,
        rule: dict[str, Any],
        ensemble: WeightedEnsemble,
    ):
        """Builds the node.

        Args:
          examples: transformed examples with the split train.
          transfer_examples: transformed examples without labels, with the split transfer.
          transform_graph: the Transform's output.
          soft_targets: of both.
          label: name of the label feature.
          rule: kind, min_confidence and balance.
          ensemble: the teachers' weights and their combination; several are one teacher from here on.
        """
        super().__init__(
            spec=fill(
                type(self),
                PseudoLabelsParameters(label=label, rule=rule, ensemble=ensemble),
                examples=examples,
                transfer_examples=transfer_examples,
                transform_graph=transform_graph,
                soft_targets=soft_targets,
            )
        )
