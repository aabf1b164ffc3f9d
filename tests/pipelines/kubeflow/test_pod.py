"""How the process of a container ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.pod import reason_of

REPOSITORY = Path(__file__).parents[3]
# Aborts when the interpreter shuts down, as a destructor of TensorFlow, gRPC or Beam may.
ABORTING = """
import atexit, ctypes, sys
from stillhouse.modules.errors import UserError
from stillhouse.pipelines.kubeflow.pod import run_task
class Aborting:
    def __del__(self):
        ctypes.CDLL(None).abort()
kept = Aborting()
atexit.register(kept.__del__)
def work():
    print("written")
    {}
"""


def ended(tmp_path, work, last="run_task('student', work)"):
    (tmp_path / "dev").mkdir(exist_ok=True)
    (tmp_path / "dev" / "termination-log").touch()
    return subprocess.run(
        [sys.executable, "-c", ABORTING.format(work) + last],
        env={"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY), "STILLHOUSE_LAUNCHER_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
    )


def test_a_destructor_that_aborts_does_not_fail_a_task_that_is_done(tmp_path):
    done = ended(tmp_path, "pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "written\n", "")
    assert ended(tmp_path, "pass", last="work()").returncode < 0  # without us it does


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        ("raise UserError('no such column')", "student: no such column"),
        ("raise RuntimeError('while at it') from UserError('no such column')", "student: no such column"),
        ("raise ValueError('first line\\nsecond')", "student: ValueError: first line"),
        ("raise KeyError", "student: KeyError: without a message"),
        ("sys.exit(5)", "student: SystemExit: 5"),
    ],
)
def test_a_task_that_fails_says_why_in_its_last_line_and_to_the_pod(tmp_path, work, sentence):
    done = ended(tmp_path, work)
    assert (done.returncode, done.stdout) == (1, "written\n")
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1] == f"error: {sentence}"
    assert (tmp_path / "dev" / "termination-log").read_text() == sentence


def test_reasons_cannot_steer_a_terminal_and_a_loop_of_causes_ends():
    assert reason_of(UserError("\x1b[2J")) == r"\x1b[2J"
    error = ValueError("a")
    error.__cause__ = error.__context__ = error
    assert reason_of(error) == "ValueError: a"
