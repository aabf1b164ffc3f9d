"""How the process of a container begins and ends: what tasks of a compiled pipeline have in common.

A task fails with one sentence as the last line of its log, which is what Kubeflow's launcher keeps of it, and as the
pod's termination message, which Kubernetes shows beside the state of the pod.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stillhouse.modules.errors import UserError
from stillhouse.modules.visible import visible

LAUNCHER_ROOT = "STILLHOUSE_LAUNCHER_ROOT"  # in the environment: where the launcher's folders stand, in tests
TERMINATION_LOG = "dev/termination-log"  # the kubelet's; there in every pod
MOST_BYTES = 4096  # that the kubelet takes
FAILED = 1


def launcher_root() -> str:
    """Returns what stands before /minio, /s3 and /gcs: nothing, but in tests."""
    return os.environ.get(LAUNCHER_ROOT, "")


def run_task(task: str, work: Callable[[], None]) -> NoReturn:
    """Does the work of a task and ends the process: with 0, or with 1 and a last line that says why.

    The process ends without destructors (os._exit). Those of TensorFlow, gRPC and Beam may abort when all is written,
    and Kubeflow would fail the task.
    """
    code = 0
    try:
        work()
    except BaseException as error:  # whatever it is, the process ends here, and tells
        code = FAILED
        traceback.print_exc()
        sentence = f"{task}: {reason_of(error)}"
        _leave_message(sentence)
        sys.stdout.flush()
        print(f"error: {sentence}", file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def reason_of(error: BaseException) -> str:
    """Returns the message of the UserError behind an error, or the error's type and first line."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        if isinstance(cause, UserError):
            return visible(str(cause))
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return visible(f"{type(error).__name__}: {lines[0] if lines else 'without a message'}")


def _leave_message(sentence: str) -> None:
    path = Path(launcher_root() or "/", TERMINATION_LOG)
    if path.is_file():
        try:
            path.write_bytes(sentence.encode()[:MOST_BYTES])
        except OSError as error:  # the sentence is in the log all the same
            print(f"cannot write {path}: {error}", file=sys.stderr)
