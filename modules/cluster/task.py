"""One process of a cluster: python -m modules.cluster.task JOB.json [FAILURE.json], with TF_CONFIG in the environment.

Started by the supervisor, or by the Kubeflow Training Operator.
"""

import json
import logging
import os
import sys
from types import SimpleNamespace
from typing import Any

from modules import progress
from modules.cluster.parent import end_with_parent
from modules.errors import UserError

PROGRESS = "\x1e"  # begins a line of output that is a log record of progress

# Between operations. A worker on one core would have one, which waits for the shared input while others wait for it.
LEAST_THREADS = 4
MOST_CHARACTERS = 500  # of an error that is told to the supervisor; its log has all


class _ToSupervisor(logging.Handler):
    """Writes progress as lines that the supervisor understands."""

    def emit(self, record: logging.LogRecord) -> None:
        told = progress.told_by(record)
        if told:
            sys.stdout.write(PROGRESS + json.dumps(told) + "\n")
            sys.stdout.flush()


def gist(message: str) -> str:
    """Returns the line of an error that says what is wrong; TensorFlow's begin with where, at length."""
    lines = [line.strip() for line in message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    if not lines:
        return ""
    return lines[-1 if lines[0] == "Graph execution error:" else 0][:MOST_CHARACTERS]


def name_stages(text: str) -> str:
    """Returns a TF_CONFIG whose workers are stages: the Training Operator has no type of that name for them."""
    from modules.strategies import STAGES  # TensorFlow reads its environment when it is imported

    given = json.loads(text)
    if "worker" in given["cluster"]:
        given["cluster"][STAGES] = given["cluster"].pop("worker")
    if given["task"]["type"] == "worker":
        given["task"]["type"] = STAGES
    return json.dumps(given)


def run(job_file: str, failure_file: str | None) -> None:
    """Runs the task; writes why it failed to `failure_file`."""
    with open(job_file) as file:
        arguments: dict[str, Any] = json.load(file)
    try:
        from modules.training import run_fn

        if arguments["custom_config"]["parallelism"].get("processes"):
            os.environ["TF_CONFIG"] = name_stages(os.environ["TF_CONFIG"])
        run_fn(SimpleNamespace(**arguments))
    except Exception as error:
        of_user = isinstance(error, UserError)
        reason = str(error) if of_user else f"{type(error).__name__}: {gist(str(error))}"
        if failure_file:
            with open(failure_file, "w") as file:
                json.dump({"reason": reason, "of_user": of_user}, file)
        if not of_user:
            raise
        print(reason, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(max(LEAST_THREADS, os.cpu_count() or 1)))
    failure = sys.argv[2] if len(sys.argv) > 2 else None
    if failure:
        end_with_parent()
        progress.LOGGER.setLevel(logging.INFO)
        progress.LOGGER.addHandler(_ToSupervisor())
        progress.LOGGER.propagate = False
    run(sys.argv[1], failure)
