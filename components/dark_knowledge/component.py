"""Similarity of classes, entropy and telling examples in the soft targets, per temperature."""

from collections.abc import Sequence

from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import Artifact, BaseChannel, standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.dark_knowledge.executor import DarkKnowledgeParameters, Executor
from stillhouse.modules.settings import WeightedEnsemble


class DarkKnowledgeReport(Artifact):
    """A folder with dark_knowledge.json and one figure per temperature."""

    TYPE_NAME = "stillhouse.DarkKnowledgeReport"  # namespace and title, as Kubeflow wants it


class DarkKnowledge(base_component.BaseComponent):
    """Looks into the soft targets of the train split."""

    SPEC_CLASS = declare(
        "DarkKnowledgeSpec",
        DarkKnowledgeParameters,
        inputs={
            "examples": standard_artifacts.Examples,
            "transform_graph": standard_artifacts.TransformGraph,
            "soft_targets": standard_artifacts.Examples,
        },
        outputs={"dark_knowledge": DarkKnowledgeReport},
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        transform_graph: BaseChannel,
        soft_targets: BaseChannel,
        label: str,
        temperatures: Sequence[float],
        ensemble: WeightedEnsemble,
    ):
        """Builds the node.

        Args:
          examples: the transformed ones.
          transform_graph: the Transform's output.
          soft_targets: of the train split.
          label: name of the label feature.
          temperatures: at which the soft targets are looked into.
          ensemble: the teachers' weights and their combination.
        """
        parameters = DarkKnowledgeParameters(label=label, temperatures=list(temperatures), ensemble=ensemble)
        super().__init__(
            spec=fill(
                type(self), parameters, examples=examples, transform_graph=transform_graph, soft_targets=soft_targets
            )
        )
