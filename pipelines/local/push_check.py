"""What can be said about the push folder before the training jobs."""

import os

from stillhouse.components.last_pushed.comparable import check_comparable
from stillhouse.components.pusher.executor import teacher_folder
from stillhouse.modules.atomic import refuse_links
from stillhouse.modules.errors import UserError
from stillhouse.modules.pushes.versions import NONE, newest_version, proposed_number
from stillhouse.modules.settings import Settings


def check_push(settings: Settings) -> None:
    """Checks that a version can be added to the push folder, and that the gate `pushed` can compare with the newest.

    Raises:
      UserError, MachineError: the first reason against it.
    """
    push_path = os.path.abspath(settings.push.path)
    _check_writable(push_path)
    proposed_number(push_path)
    if any(teacher.warm_start for teacher in settings.teachers):
        for number, _ in enumerate(settings.all_teachers(), start=1):
            refuse_links(os.path.join(push_path, teacher_folder(number)), below=push_path)
    newest = newest_version(push_path)
    if settings.evaluation.gates.pushed and newest != NONE:
        check_comparable(os.path.join(push_path, newest), settings.data.label)


def _check_writable(push_path: str) -> None:
    """Checks that the folder, or the nearest one above it that exists, is a folder in which one can be made."""
    existing = push_path
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise UserError(f"push.path: {existing} is not a folder; set another push.path")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"push.path: {existing} cannot be written: permission denied; change that, or set another")
