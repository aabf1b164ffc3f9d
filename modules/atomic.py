"""Files and folders that appear whole or not at all.

A file or a folder is written under another name beside its target, and renamed when it is complete. Whoever opens the
target finds the old content or the new, never a part. If the writer raises, what it has written is removed. If it is
killed, what it has written stays, the target is as it was, and `remove_leftovers` knows the leftover by its name:
`.NAME.unfinished-PROCESS-RANDOM`. The names are unique: several writers of one target do not disturb each other, and
the last one to finish wins.

There are two ways, chosen by the path, because object stores have no rename:

local path    os.replace and os.rename, which POSIX makes atomic. A file reaches the disk (fsync) before its name does:
              a power failure leaves no empty file. The files of a folder are not synced; whoever keeps a large folder
              checks it when reading, as `stillhouse.modules.ingestion.on_disk` does. To replace a folder takes two
              renames, between which there is none. A target that is a symbolic link is itself replaced; what it points
              to is neither written nor removed. A link in the middle of a path is followed; `refuse_links` is for
              those who write or delete below a folder that was given to them.
SCHEME://...  tf.io.gfile: gs:// and what else TensorFlow opens. Such a path has to be a string, as pathlib shortens it.
              A rename copies and deletes. A file still appears whole, as every object does; the files of a folder
              appear one after the other, so its readers need to know by themselves what is complete.
"""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stillhouse.modules.errors import UserError

UNFINISHED = ".unfinished-"
EXISTS = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # what rename(2) says of a target that it does not replace
NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP)  # what renameat2(2) says where it is not known
CURRENT_FOLDER, NO_REPLACE = -100, 1  # AT_FDCWD and RENAME_NOREPLACE of renameat2(2)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a file of UTF-8 text, in the place of an older one.

    Raises:
      OSError, tf.errors.OpError: it cannot be written; the older one is as it was.
    """
    with new_file(path) as unfinished:
        if is_remote(unfinished):
            import tensorflow as tf

            with tf.io.gfile.GFile(unfinished, "w") as file:
                file.write(text)
        else:
            with open(unfinished, "w", encoding="utf-8") as file:
                file.write(text)


@contextmanager
def new_file(path: str | os.PathLike) -> Iterator[str]:
    """Gives the name under which to write the file; it becomes `path`, in the place of an older one, when that is done.

    Raises:
      OSError, tf.errors.OpError: the file was not written, or cannot be put in place; the older one is as it was.
    """
    target = _target(path)
    unfinished = _unfinished_name(target)
    try:
        yield unfinished
        if is_remote(target):
            import tensorflow as tf

            tf.io.gfile.rename(unfinished, target, overwrite=True)
        else:
            _sync(unfinished)
            os.replace(unfinished, target)
    except BaseException:
        remove(unfinished)
        raise


@contextmanager
def new_folder(path: str | os.PathLike, *, replace: bool = False) -> Iterator[str]:
    """Gives an empty folder to fill, which becomes `path` when that is done.

    Args:
      path: of the folder; the folder above it is made if it is missing.
      replace: whether to take the place of what has that path by then.

    Raises:
      FileExistsError: something has that path by then, and `replace` is not set.
      OSError, tf.errors.OpError: the folder cannot be made or put in place.
    """
    target = _target(path)
    unfinished = _unfinished_name(target)
    try:
        if is_remote(target):
            import tensorflow as tf

            tf.io.gfile.makedirs(unfinished)
            yield unfinished
            if tf.io.gfile.exists(target):
                if not replace:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
                tf.io.gfile.rmtree(target)
            tf.io.gfile.rename(unfinished, target)
        else:
            os.makedirs(unfinished)
            yield unfinished
            _put_folder_in_place(unfinished, target, replace)
    except BaseException:
        remove(unfinished)
        raise


def remove_leftovers(path: str | os.PathLike) -> None:
    """Removes what killed writers of `path` have left; to be called where nobody else writes it, as under a lock."""
    folder, name = os.path.split(_target(path))
    if is_remote(folder):
        import tensorflow as tf

        names = [entry.rstrip("/") for entry in tf.io.gfile.listdir(folder)] if tf.io.gfile.isdir(folder) else []
    else:
        try:
            names = os.listdir(folder or os.curdir)
        except (FileNotFoundError, NotADirectoryError):
            names = []
    for entry in names:
        if entry.startswith(f".{name}{UNFINISHED}"):
            remove(os.path.join(folder, entry))


def rename_to_new(source: str, target: str) -> None:
    """Renames a folder to a name that must not exist; os.rename alone replaces an empty folder.

    Where the file system cannot do that in one step (NFS, for one), an empty folder that appears between the look and
    the rename is replaced; a folder with content never is.

    Raises:
      FileExistsError: something has the name `target`.
      OSError: the folder cannot be renamed.
    """
    exists = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):  # Linux
        names = (CURRENT_FOLDER, os.fsencode(source), CURRENT_FOLDER, os.fsencode(target))
        if library.renameat2(*names, NO_REPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            raise exists
        if number not in NOT_SUPPORTED:
            raise OSError(number, os.strerror(number), source, None, target)
    if os.path.lexists(target):
        raise exists
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in EXISTS:
            raise exists from error
        raise


def refuse_links(path: str | os.PathLike, below: str | os.PathLike) -> None:
    """Checks that no part of `path` below the folder `below` is a symbolic link; object stores have none.

    Raises:
      UserError: one is; whoever wrote or deleted there would do so in a folder that nobody named.
    """
    path, below = os.fspath(path), os.fspath(below)
    if is_remote(path):
        return
    for part in os.path.relpath(path, below).split(os.sep):
        below = os.path.join(below, part)
        _refuse_link(below)


def refuse_links_below(folder: str | os.PathLike) -> None:
    """Checks that the folder, which may be missing, has no symbolic links in it.

    Raises:
      UserError: it has one.
    """
    for parent, folders, files in os.walk(os.fspath(folder)):
        for name in (*folders, *files):
            _refuse_link(os.path.join(parent, name))


def _refuse_link(path: str) -> None:
    if os.path.islink(path):
        raise UserError(
            f"{path}: found a symbolic link (to {os.readlink(path)}); expected none, because stillhouse writes and "
            "deletes here and would do so there; remove the link"
        )


def is_remote(path: str) -> bool:
    """Returns whether a path is SCHEME://... ."""
    return "://" in path


def _target(path: str | os.PathLike) -> str:
    return os.fspath(path).rstrip("/")  # with a slash behind it, a link would be followed


def _unfinished_name(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}")


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_folder_in_place(unfinished: str, target: str, replace: bool) -> None:
    older = []
    try:
        while True:
            try:
                rename_to_new(unfinished, target)
                return
            except FileExistsError:
                if not replace:
                    raise
            aside = _unfinished_name(target)
            with suppress(FileNotFoundError):  # another writer has just moved it
                os.rename(target, aside)
                older.append(aside)
    finally:
        for folder in older:
            remove(folder)


def remove(path: str | os.PathLike) -> None:
    """Removes a file, a folder or a link, if it is there; links are not followed."""
    path = _target(path)
    if is_remote(path):
        import tensorflow as tf

        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        elif tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)
    elif os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)
