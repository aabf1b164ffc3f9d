"""Versions in a push folder. A version is the time of its push, in seconds, or the next free number after it."""

import hashlib
import json
import os
from typing import Any

from tfx import types
from tfx.dsl.io import fileio
from tfx.utils import path_utils

from stillhouse.components.base import Parameters

NONE = ""  # no version
# In the folder for files that TensorFlow does not look at.
PUSH_RECORD = os.path.join("assets.extra", "push.json")
BLOCK_BYTES = 1 << 20


class LastPushedParameters(Parameters):
    """`folder` is that of the versions below push_path: "" for students, or a teacher's of `components.pusher`."""

    push_path: str
    folder: str


def model_fingerprint(saved_model: str) -> str:
    """Returns a hash of the names and bytes of a SavedModel's files, without the record of its push."""
    files = sorted(
        os.path.relpath(os.path.join(os.fsdecode(folder), os.fsdecode(name)), saved_model)
        for folder, _, names in fileio.walk(saved_model)
        for name in names
    )
    digest = hashlib.sha256()
    for name in files:
        if name == PUSH_RECORD:
            continue
        digest.update(f"{name}\0".encode())
        with fileio.open(os.path.join(saved_model, name), "rb") as file:
            size = 0
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
        digest.update(size.to_bytes(8, "big"))
    return digest.hexdigest()


def record_push(version: str) -> None:
    """Writes the fingerprint of the SavedModel in the folder `version` into it, by which it is found later."""
    path = os.path.join(version, PUSH_RECORD)
    fileio.makedirs(os.path.dirname(path))
    with fileio.open(path, "w") as file:
        file.write(json.dumps({"fingerprint": model_fingerprint(version)}))


def _fingerprint_of_version(path: str) -> str:
    """Returns the fingerprint that was recorded at the push; that of the files where none was."""
    record = os.path.join(path, PUSH_RECORD)
    if not fileio.exists(record):  # pushed by something else, or by an older stillhouse
        return model_fingerprint(path)
    with fileio.open(record) as file:
        return json.loads(file.read())["fingerprint"]


def pushed_versions(push_path: str) -> list[str]:
    """Returns the version numbers in the push folder, newest first."""
    if not fileio.exists(push_path):
        return []
    names = [os.fsdecode(name).rstrip("/") for name in fileio.listdir(push_path)]
    numbers = [name for name in names if name.isdigit()]
    complete = [name for name in numbers if fileio.exists(os.path.join(push_path, name, "saved_model.pb"))]
    return sorted(complete, key=int, reverse=True)


def version_of(push_path: str, saved_model: str) -> str:
    """Returns the newest version that holds the very files of `saved_model`, or NONE."""
    fingerprint = model_fingerprint(saved_model)
    for version in pushed_versions(push_path):
        if _fingerprint_of_version(os.path.join(push_path, version)) == fingerprint:
            return version
    return NONE


def version_before(push_path: str, saved_model: str) -> str:
    """Returns the version that `saved_model` has to be compared with before it is pushed, or NONE.

    That is the newest one. When the newest one is this very model (an unchanged pipeline runs again), it is the
    one before it, with which the model was compared when it was pushed.
    """
    versions = pushed_versions(push_path)
    if versions:
        newest = os.path.join(push_path, versions[0])
        if _fingerprint_of_version(newest) == model_fingerprint(saved_model):
            versions = versions[1:]
    return versions[0] if versions else NONE


def choose_version(input_dict: dict[str, list[types.Artifact]], properties: dict[str, Any]) -> str:
    """Returns the version that a LastPushed with these inputs and execution properties copies, or NONE."""
    parameters = LastPushedParameters.read(properties)
    folder = os.path.join(parameters.push_path, parameters.folder)
    if input_dict.get("student"):
        return version_before(folder, path_utils.serving_model_path(input_dict["student"][0].uri))
    versions = pushed_versions(folder)
    if input_dict.get("examples"):
        # In milliseconds; 0 where the runner does not tell.
        ingested = input_dict["examples"][0].mlmd_artifact.create_time_since_epoch // 1000
        versions = [version for version in versions if not ingested or int(version) < ingested]
    return versions[0] if versions else NONE
