"""Which version of a push folder a LastPushed copies."""

import os
from typing import Any

from tfx import types
from tfx.utils import path_utils

from stillhouse.components.base import Parameters
from stillhouse.modules.pushes.versions import (
    NONE,
    fingerprint_of_version,
    made_by_stillhouse,
    model_fingerprint,
    pushed_at,
    pushed_versions,
    read_record,
)


class LastPushedParameters(Parameters):
    """`folder` is that of the versions below push_path: "" for students, or a teacher's of `components.pusher`."""

    push_path: str
    folder: str


def version_before(push_path: str, saved_model: str) -> str:
    """Returns the version that `saved_model` has to be compared with before it is pushed, or NONE.

    That is the newest one, which is served. When the newest is this very model (an unchanged pipeline runs again), it
    is the version with which the model was compared when it was pushed: the newest of another model, or, after a
    rollback, the newest that is older than the version that was gone back to.
    """
    versions, fingerprint = pushed_versions(push_path), model_fingerprint(saved_model)
    holds = {version: fingerprint_of_version(os.path.join(push_path, version)) == fingerprint for version in versions}
    if versions and holds[versions[0]]:
        copy_of = (read_record(os.path.join(push_path, versions[0])) or {}).get("copy_of")
        while copy_of in versions:
            versions = versions[versions.index(copy_of) :]
            copy_of = (read_record(os.path.join(push_path, versions[0])) or {}).get("copy_of")
    return next((version for version in versions if not holds[version]), NONE)


def version_to_start_from(push_path: str, folder: str, before: int) -> str:
    """Returns the newest version that stillhouse has made, or NONE.

    Args:
      push_path: the push folder.
      folder: of the versions, below it: "" for students, or a teacher's.
      before: only versions whose student was pushed before this time, in seconds, count; 0: all.
    """
    versions = os.path.join(push_path, folder)
    for version in pushed_versions(versions):
        is_early = not before or pushed_at(push_path, version) < before
        if is_early and made_by_stillhouse(os.path.join(versions, version)):
            return version
    return NONE


def choose_version(input_dict: dict[str, list[types.Artifact]], properties: dict[str, Any]) -> str:
    """Returns the version that a LastPushed with these inputs and execution properties copies, or NONE."""
    parameters = LastPushedParameters.read(properties)
    if input_dict.get("student"):
        student = path_utils.serving_model_path(input_dict["student"][0].uri)
        return version_before(os.path.join(parameters.push_path, parameters.folder), student)
    # In milliseconds; 0 where the runner does not tell.
    examples = input_dict.get("examples")
    ingested = examples[0].mlmd_artifact.create_time_since_epoch // 1000 if examples else 0
    return version_to_start_from(parameters.push_path, parameters.folder, ingested)
