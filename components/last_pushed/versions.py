"""Versions in a push folder."""

import os

from tfx.dsl.io import fileio

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
