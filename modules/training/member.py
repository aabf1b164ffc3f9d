"""One process of a cluster, with TF_CONFIG in its environment.

python -m stillhouse.modules.training.member JOB.json [FAILURE.json]

Started by the supervisor, or by the Kubeflow Training Operator.
"""

import json
import logging
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from stillhouse.modules import progress
from stillhouse.modules.cluster.heartbeat import start_heartbeat
from stillhouse.modules.errors import UserError
from stillhouse.modules.parent_process import end_with_parent

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs

# Between operations. A worker on one core would have one, which waits for the shared input while others wait for it.
MIN_THREADS = 4
MAX_CHARACTERS = 500  # of an error reported to the supervisor; the log has all of it


class _ToSupervisor(logging.Handler):
    """Writes progress as lines that the supervisor understands."""

    def emit(self, record: logging.LogRecord) -> None:
        payload = progress.payload_of(record)
        if payload:
            sys.stdout.write(progress.LINE + json.dumps(payload) + "\n")
            sys.stdout.flush()


def gist(message: str) -> str:
    """Returns the line of an error with its reason; TensorFlow's errors begin with their origin, at length."""
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    if not lines:
        return ""
    return lines[-1 if lines[0] == "Graph execution error:" else 0][:MAX_CHARACTERS]


def run(job_file: str, failure_file: str | None) -> None:
    """Runs the task; writes why it failed to `failure_file`."""
    with open(job_file) as file:
        arguments: dict[str, Any] = json.load(file)
    try:
        # TensorFlow reads its environment, which is complete only now, when it is imported.
        from stillhouse.modules.training.launch import run_fn

        run_fn(cast("FnArgs", SimpleNamespace(**arguments)))
    except Exception as error:
        of_user = isinstance(error, UserError)
        reason = str(error) if of_user else f"{type(error).__name__}: {gist(str(error))}"
        if failure_file:
            with open(failure_file, "w") as file:
                json.dump({"reason": reason, "of_user": of_user}, file)
        if not isinstance(error, UserError):
            raise
        print(reason, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(max(MIN_THREADS, os.cpu_count() or 1)))
    failure = sys.argv[2] if len(sys.argv) > 2 else None
    if failure:
        end_with_parent()
        start_heartbeat()  # before TensorFlow, whose import takes long
        progress.LOGGER.setLevel(logging.INFO)
        progress.LOGGER.addHandler(_ToSupervisor())
        progress.LOGGER.propagate = False
    run(sys.argv[1], failure)
