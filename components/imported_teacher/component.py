"""A SavedModel that exists already, as a teacher like any other."""

import json
from dataclasses import asdict

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from stillhouse.components.imported_teacher.executor import Executor
from stillhouse.modules.models.imported import SavedTeacher


class ImportedTeacherSpec(types.ComponentSpec):
    """`fingerprint` is that of the SavedModel's files, for the cache."""

    PARAMETERS = {
        "teacher": ExecutionParameter(type=str),
        "fingerprint": ExecutionParameter(type=str),
        "label": ExecutionParameter(type=str),
        "head": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
    }
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class ImportedTeacher(base_component.BaseComponent):
    """Gives a SavedModel on transformed features the signatures of our models; probabilities become logits."""

    SPEC_CLASS = ImportedTeacherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        teacher: SavedTeacher,
        fingerprint: str,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        label: str,
        head: str,
        code: str,
    ):
        """Builds the node; `examples` are the transformed ones, by which it tells logits from probabilities."""
        super().__init__(
            spec=ImportedTeacherSpec(
                teacher=json.dumps(asdict(teacher)),
                fingerprint=fingerprint,
                label=label,
                head=head,
                code=code,
                examples=examples,
                transform_graph=transform_graph,
                model=types.Channel(type=standard_artifacts.Model),
            )
        )
