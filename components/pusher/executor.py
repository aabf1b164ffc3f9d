"""Pushes the model that was checked, as the newest version, and keeps its teachers.

Teachers are kept in .teachers/Teacher-N/VERSION, where model servers do not look, for trainings that start from them;
only those of the newest version.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils, proto_utils

from stillhouse.components.base import numbered_artifacts
from stillhouse.components.blessing.executor import DECISIONS
from stillhouse.components.checked_model import checked_fingerprint, remedy
from stillhouse.components.evaluation import EXAMPLES, read_student
from stillhouse.components.serving_check.executor import DECISION
from stillhouse.modules import progress
from stillhouse.modules.atomic import refuse_links
from stillhouse.modules.pushes.push import copy_folder, explained, keep_teachers, push, remove_dead, unfinished_folder
from stillhouse.modules.pushes.versions import NONE, model_fingerprint, version_to_report

TEACHERS = ".teachers"
BLESSINGS = ("model_blessing", "infra_blessing")


def teacher_folder(number: int) -> str:
    """Returns where the versions of a teacher are, below the push folder."""
    return f"{TEACHERS}/Teacher-{number}"


def push_path_of(exec_properties: dict[str, Any]) -> str:
    """Returns the push folder of a Pusher with these execution properties."""
    destination = proto_utils.json_to_proto(exec_properties["push_destination"], pusher_pb2.PushDestination())
    return destination.filesystem.base_directory


def fingerprint_to_push(input_dict: dict[str, list[types.Artifact]], model_path: str) -> str:
    """Returns the fingerprint of the model that was checked; that of its files where no check has noted it."""
    blessings = [input_dict[name][0] for name in BLESSINGS if input_dict.get(name)]
    return checked_fingerprint(input_dict["model"][0], blessings) or model_fingerprint(model_path)


class Executor(executor.Executor):
    """Stock push, but atomic, verified, and without a second version of the model that is the newest already."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """As the stock executor's.

        A version is the number that the driver has chosen, or else the time in seconds; larger if that is not the
        largest number in the push folder.

        Raises:
          MachineError: the model is not the one that was checked, or the disk is full.
          UserError: the push folder cannot be written.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        model_path, push_path = self.GetModelPath(input_dict), push_path_of(exec_properties)
        fingerprint = fingerprint_to_push(input_dict, model_path)
        io_utils.copy_dir(model_path, pushed.uri)  # as the stock executor does
        record, reserved = self._record(input_dict), exec_properties.get("version")
        with ExitStack() as stack:
            version, staged = version_to_report(push_path, fingerprint), {}
            for number, teacher in enumerate(numbered_artifacts(input_dict, "teacher"), start=1):
                folder = os.path.join(push_path, teacher_folder(number))
                if version == NONE or not fileio.exists(os.path.join(folder, version)):
                    copy = _staged(path_utils.serving_model_path(teacher.uri), folder, push_path)
                    staged[folder] = stack.enter_context(copy)
            if version == NONE:
                at_least = int(reserved) if reserved else None
                version = push(model_path, push_path, fingerprint, record, remedy(input_dict["model"][0]), at_least)
            else:
                progress.note(f"{os.path.join(push_path, version)} holds this very model already; nothing to push")
            # The teachers are copied before the student appears, and get their names after it has got its own.
            keep_teachers(staged, push_path, version)
        self._MarkPushed(pushed, pushed_destination=os.path.join(push_path, version), pushed_version=version)

    def _record(self, input_dict: dict[str, list[types.Artifact]]) -> dict[str, Any]:
        """Returns what `stillhouse pushed` tells about a version, as far as it is known here."""
        record: dict[str, Any] = {}
        if self._context and self._context.pipeline_info:
            record |= {"pipeline": self._context.pipeline_info.id, "run_id": self._context.pipeline_run_id}
        for evaluation in numbered_artifacts(input_dict, "evaluation"):
            metrics = read_student(evaluation.uri).overall
            record["metrics"] = {name: value for name, value in metrics.items() if name != EXAMPLES}
        gates: list[dict[str, Any]] = []
        for blessing, file_name in zip(BLESSINGS, (DECISIONS, DECISION), strict=True):
            for artifact in input_dict.get(blessing, []):
                path = os.path.join(artifact.uri, file_name)
                if fileio.exists(path):  # a stock blessing has none
                    decisions = json.loads(io_utils.read_string_file(path))
                    gates += decisions if isinstance(decisions, list) else [decisions]
        return record | ({"gates": gates} if gates else {})


@contextmanager
def _staged(saved_model: str, folder: str, push_path: str) -> Iterator[str]:
    """Gives an unfinished folder among a teacher's versions with a copy of the teacher."""
    refuse_links(folder, below=push_path)
    with ExitStack() as stack:
        with explained(push_path):
            remove_dead(folder)
            unfinished = stack.enter_context(unfinished_folder(folder))
            copy_folder(saved_model, unfinished)
        yield unfinished
