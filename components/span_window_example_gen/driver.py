"""Looks which spans there are before TFX looks into its cache."""

from typing import Any

from tfx.components.example_gen.driver import FileBasedDriver
from tfx.orchestration import data_types

from stillhouse.components.span_window_example_gen.window import widened


class Driver(FileBasedDriver):
    """The stock driver finds the newest span; this one adds those before it."""

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Returns the execution properties with the patterns and the fingerprint of the whole window."""
        unresolved = dict(exec_properties)
        resolved = super().resolve_exec_properties(exec_properties, pipeline_info, component_info)
        return resolved | widened(unresolved, resolved["span"])
