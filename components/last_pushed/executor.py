"""Copies a pushed version into an artifact."""

import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils

from stillhouse.components.last_pushed.comparable import check_comparable
from stillhouse.components.last_pushed.versions import LastPushedParameters, choose_version
from stillhouse.modules.pushes.versions import NONE


class Executor(base_executor.BaseExecutor):
    """Works without the driver too (a runner that has no drivers): then it looks into the folder itself."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes output_dict["model"], with the version in its custom property `version`.

        Raises:
          UserError, MachineError: the student cannot be compared with the version.
        """
        version = exec_properties.get("version")
        if version is None:
            version = choose_version(input_dict, exec_properties)
        model = artifact_utils.get_single_instance(output_dict["model"])
        model.set_string_custom_property("version", version)
        if version != NONE:
            parameters = LastPushedParameters.read(exec_properties)
            source = os.path.join(parameters.push_path, parameters.folder, version)
            if input_dict.get("student"):
                check_comparable(source)
            io_utils.copy_dir(source, path_utils.serving_model_dir(model.uri))
