"""Hands teachers, soft targets and transfer examples to run_fn; all else is the stock Trainer's executor."""

from typing import Any

from tfx import types
from tfx.components.trainer import executor as trainer
from tfx.types import artifact_utils
from tfx.utils import io_utils, json_utils, path_utils

from stillhouse.components.base import numbered_artifacts


class Executor(trainer.GenericExecutor):
    """Adds to custom_config where teachers, soft targets and transfer examples are, and trains."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """As the stock Trainer's; the model is written to output_dict["model"]."""
        teachers = numbered_artifacts(input_dict, "teacher")
        config = json_utils.loads(exec_properties["custom_config"])
        config["teachers"] = [path_utils.serving_model_path(teacher.uri) for teacher in teachers]
        if input_dict.get("soft_targets"):
            config["soft_targets"] = artifact_utils.get_single_uri(input_dict["soft_targets"])
        if input_dict.get("transfer_examples"):
            uri = artifact_utils.get_split_uri(input_dict["transfer_examples"], "transfer")
            # A baseline makes as many updates as with them, but does not learn from them.
            key = "matched_files" if config.get("matched") else "transfer_files"
            config[key] = [io_utils.all_files_pattern(uri)]
        super().Do(input_dict, output_dict, exec_properties | {"custom_config": json_utils.dumps(config)})
