"""Versions in a push folder. A version is the time of its push, in seconds, or the next free number after it."""

import os
from typing import Any

from tfx import types
from tfx.dsl.io import fileio
from tfx.utils import path_utils

NONE = ""  # no version


def _files(folder: str) -> dict[str, bytes]:
    contents = {}
    for parent, _, names in fileio.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with fileio.open(path, "rb") as file:
                contents[os.path.relpath(path, folder)] = file.read()
    return contents


def pushed_versions(push_path: str) -> list[str]:
    """Returns the version numbers in the push folder, newest first."""
    if not fileio.exists(push_path):
        return []
    numbers = [name.rstrip("/") for name in fileio.listdir(push_path) if name.rstrip("/").isdigit()]
    complete = [name for name in numbers if fileio.exists(os.path.join(push_path, name, "saved_model.pb"))]
    return sorted(complete, key=int, reverse=True)


def version_of(push_path: str, saved_model: str) -> str:
    """Returns the newest version that holds the very files of `saved_model`, or NONE."""
    wanted = _files(saved_model)
    for version in pushed_versions(push_path):
        if _files(os.path.join(push_path, version)) == wanted:
            return version
    return NONE


def version_before(push_path: str, saved_model: str) -> str:
    """Returns the version that `saved_model` has to be compared with before it is pushed, or NONE.

    That is the newest one. When the newest one is this very model (an unchanged pipeline runs again), it is the
    one before it, with which the model was compared when it was pushed.
    """
    versions = pushed_versions(push_path)
    if versions and version_of(push_path, saved_model) == versions[0]:
        versions = versions[1:]
    return versions[0] if versions else NONE


def choose_version(input_dict: dict[str, list[types.Artifact]], properties: dict[str, Any]) -> str:
    """Returns the version that a LastPushed with these inputs and execution properties copies, or NONE."""
    folder = os.path.join(properties["push_path"], properties["folder"])
    if input_dict.get("student"):
        return version_before(folder, path_utils.serving_model_path(input_dict["student"][0].uri))
    versions = pushed_versions(folder)
    if input_dict.get("examples"):
        # In milliseconds; 0 where the runner does not tell.
        ingested = input_dict["examples"][0].mlmd_artifact.create_time_since_epoch // 1000
        versions = [version for version in versions if not ingested or int(version) < ingested]
    return versions[0] if versions else NONE
