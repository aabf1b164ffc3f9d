"""Copies the last pushed version into an artifact."""

import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from components.last_pushed.versions import NONE, version_before


class Executor(base_executor.BaseExecutor):
    """Works without the driver too (a runner that has no drivers): then it looks into the folder itself."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["model"], with the version in its custom property `version`."""
        push_path = exec_properties["push_path"]
        version = exec_properties.get("version")
        if version is None:
            version = version_before(push_path, path_utils.serving_model_path(input_dict["student"][0].uri))
        model = artifact_utils.get_single_instance(output_dict["model"])
        model.set_string_custom_property("version", version)
        if version != NONE:
            io_utils.copy_dir(os.path.join(push_path, version), path_utils.serving_model_dir(model.uri))
