"""A model that was pushed: the one that a new student has to be compared with, or that a training starts from.

A component and not TFX's Resolver, because open-source Kubeflow Pipelines refuses resolver nodes.
"""

from tfx import types
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import standard_artifacts

from stillhouse.components.base import declare, fill
from stillhouse.components.last_pushed.driver import Driver
from stillhouse.components.last_pushed.executor import Executor
from stillhouse.components.last_pushed.versions import LastPushedParameters


class LastPushed(base_component.BaseComponent):
    """Copies a pushed version; an empty artifact if there is none."""

    # The driver sets `version`, so that TFX's cache sees what is in the push folder.
    SPEC_CLASS = declare(
        "LastPushedSpec",
        LastPushedParameters,
        inputs={},
        optional_inputs={"student": standard_artifacts.Model, "examples": standard_artifacts.Examples},
        outputs={"model": standard_artifacts.Model},
        set_by_driver=["version"],
    )
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
    DRIVER_CLASS = Driver

    def __init__(
        self,
        push_path: str,
        student: types.BaseChannel | None = None,
        examples: types.BaseChannel | None = None,
        folder: str = "",
    ):
        """Builds the node.

        Args:
          push_path: the folder that the Pusher pushes to.
          student: Model channel; if the newest version is this very model, the one before it is taken.
          examples: Examples channel; only versions that were pushed before these were ingested are taken, so that a
            pipeline that runs again on the same data starts from the same version.
          folder: of the versions, below push_path: "" for students, or a teacher's of `stillhouse.components.pusher`.
        """
        parameters = LastPushedParameters(push_path=push_path, folder=folder)
        super().__init__(spec=fill(type(self), parameters, student=student, examples=examples))
