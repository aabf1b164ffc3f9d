"""Lets the stock executor push into a folder aside, then renames the version into place.

Teachers are kept in .teachers/Teacher-N/VERSION, where model servers do not look, for trainings that start from them;
only those of the newest version.
"""

import os
from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils, proto_utils

from stillhouse.components.base import numbered_artifacts
from stillhouse.components.last_pushed.versions import record_push
from stillhouse.modules.atomic import new_folder

UNFINISHED = ".unfinished"
TEACHERS = ".teachers"


def teacher_folder(number: int) -> str:
    """Returns where the versions of a teacher are, below the push folder."""
    return f"{TEACHERS}/Teacher-{number}"


class Executor(executor.Executor):
    """Stock push, atomic: a killed push leaves only a hidden folder, which the next push removes."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """As the stock executor's. A version is the time in seconds, or the next free number after it."""
        destination = proto_utils.json_to_proto(exec_properties["push_destination"], pusher_pb2.PushDestination())
        base = destination.filesystem.base_directory
        aside = os.path.join(base, UNFINISHED)
        if fileio.exists(aside):
            fileio.rmtree(aside)
        destination.filesystem.base_directory = aside
        properties = exec_properties | {"push_destination": proto_utils.proto_to_json(destination)}
        super().Do(input_dict, output_dict, properties)

        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not pushed.get_int_custom_property("pushed"):
            return
        written = pushed.get_string_custom_property("pushed_destination")
        version = int(pushed.get_string_custom_property("pushed_version"))
        while fileio.exists(os.path.join(base, str(version))):
            version += 1
        # Before the student appears: then whoever finds the version finds its teachers too.
        for number, teacher in enumerate(numbered_artifacts(input_dict, "teacher"), start=1):
            _keep_teacher(
                path_utils.serving_model_path(teacher.uri), os.path.join(base, teacher_folder(number)), version
            )
        record_push(written)
        target = os.path.join(base, str(version))
        fileio.rename(written, target)
        fileio.rmtree(aside)
        self._MarkPushed(pushed, pushed_destination=target, pushed_version=str(version))


def _keep_teacher(saved_model: str, folder: str, version: int) -> None:
    """Copies a teacher into folder/version, and removes the older ones."""
    with new_folder(os.path.join(folder, str(version))) as unfinished:
        io_utils.copy_dir(saved_model, unfinished)
    for name in map(os.fsdecode, fileio.listdir(folder)):
        if name.rstrip("/") != str(version):
            fileio.rmtree(os.path.join(folder, name))
