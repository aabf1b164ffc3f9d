"""The model that a new student has to be compared with: the newest version in the push folder.

A component and not TFX's Resolver, because open-source Kubeflow Pipelines refuses resolver nodes.
"""

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.component_spec import ChannelParameter, ExecutionParameter

from components.last_pushed.driver import Driver
from components.last_pushed.executor import Executor


class LastPushedSpec(types.ComponentSpec):
    """`version` is set by the driver, so that TFX's cache sees what is in the push folder."""

    PARAMETERS = {
        "push_path": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {"student": ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {"model": ChannelParameter(type=standard_artifacts.Model)}


class LastPushed(base_component.BaseComponent):
    """Copies the newest pushed version other than the student itself; an empty artifact if there is none."""

    SPEC_CLASS = LastPushedSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(self, push_path: str, student: types.BaseChannel):
        """Builds the node over the folder that the Pusher pushes to and the student's Model channel."""
        super().__init__(
            spec=LastPushedSpec(
                push_path=push_path, student=student, model=types.Channel(type=standard_artifacts.Model)
            )
        )
