"""Similarity of classes, entropy and telling examples in the soft targets, per temperature."""

import json
from collections.abc import Sequence

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.dark_knowledge.executor import Executor


class DarkKnowledgeReport(types.Artifact):
    """A folder with dark_knowledge.json and one figure per temperature."""

    TYPE_NAME = "stillhouse.DarkKnowledgeReport"  # namespace and title, as Kubeflow wants it


class DarkKnowledgeSpec(types.ComponentSpec):
    """`ensemble` has the teachers' weights and their combination."""

    PARAMETERS = {
        "label": ExecutionParameter(type=str),
        "temperatures": ExecutionParameter(type=str),
        "ensemble": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "soft_targets": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"dark_knowledge": ChannelParameter(type=DarkKnowledgeReport)}


class DarkKnowledge(base_component.BaseComponent):
    """Looks into the soft targets of the train split."""

    SPEC_CLASS = DarkKnowledgeSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        soft_targets: types.BaseChannel,
        label: str,
        temperatures: Sequence[float],
        ensemble: dict,
        code: str,
    ):
        """Builds the node; `examples` are the transformed ones, `code` is the fingerprint that the cache sees."""
        super().__init__(
            spec=DarkKnowledgeSpec(
                label=label,
                temperatures=json.dumps(list(temperatures)),
                ensemble=json.dumps(ensemble),
                code=code,
                examples=examples,
                transform_graph=transform_graph,
                soft_targets=soft_targets,
                dark_knowledge=types.Channel(type=DarkKnowledgeReport),
            )
        )
