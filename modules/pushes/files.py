"""The file system of a push folder: Python's own, or TensorFlow's for SCHEME://..., which is imported only then."""

import os
import shutil
from types import SimpleNamespace
from typing import Any

from stillhouse.modules.atomic import is_remote

LOCAL = SimpleNamespace(
    exists=os.path.exists,
    isdir=os.path.isdir,
    listdir=os.listdir,
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    copy=shutil.copyfile,
    open=open,
    walk=os.walk,
    modified=lambda path: os.lstat(path).st_mtime,
)


def file_system(path: str) -> Any:
    """Returns the functions exists, isdir, listdir, makedirs, copy, open, walk and modified (seconds) for a path."""
    if not is_remote(path):
        return LOCAL
    import tensorflow as tf

    gfile = tf.io.gfile
    return SimpleNamespace(
        exists=gfile.exists,
        isdir=gfile.isdir,
        listdir=lambda folder: [name.rstrip("/") for name in gfile.listdir(folder)],
        makedirs=gfile.makedirs,
        copy=gfile.copy,
        open=gfile.GFile,
        walk=gfile.walk,
        modified=lambda name: gfile.stat(name).mtime_nsec / 1e9,
    )


def files_below(folder: str) -> list[str]:
    """Returns the paths of all files below a folder, relative to it, sorted."""
    found = file_system(folder).walk(folder)
    return sorted(os.path.relpath(os.path.join(parent, name), folder) for parent, _, names in found for name in names)
