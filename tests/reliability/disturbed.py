"""`python -m disturbed ARGUMENT...` is `python -m stillhouse ARGUMENT...` with one disturbance at one point.

$DISTURBED_POINT is one of
  running:NODE+SECONDS   that long after the component has started
  finished:NODE          its outputs are published
  effect:NODE:NUMBER     before the NUMBER-th change of the disk or of the metadata store since the component started
and $DISTURBED_ACTION one of
  KILL, INT, TERM, HUP   this signal to this process
  FILL:FILE              FILE grows until its disk is full
  STOP                   exit with code STOPPED, at once
"""

import logging
import os
import signal
import sys
import threading

from ml_metadata.metadata_store import MetadataStore

from stillhouse.modules.pushes import push
from stillhouse.pipelines.cli.app import main as stillhouse
from stillhouse.pipelines.local.run_view import COMPONENT_FINISHED, COMPONENT_RUNS

STOPPED = 75
BLOCK_BYTES = 1 << 16
# Python's audit events of what changes the disk, besides `open` for writing.
EFFECTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")


def act() -> None:
    """Does what $DISTURBED_ACTION says."""
    action = os.environ["DISTURBED_ACTION"]
    if action.startswith("FILL:"):
        fill(action.partition(":")[2])
    elif action == "STOP":
        os._exit(STOPPED)
    else:
        os.kill(os.getpid(), getattr(signal, f"SIG{action}"))


def fill(path: str) -> None:
    """Writes zeros until the disk of `path` is full."""
    with open(path, "ab", buffering=0) as file:
        for size in (BLOCK_BYTES, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass


class Disturbance(logging.Handler):
    """Follows the components as RunView does, and acts once."""

    def __init__(self, point: str):
        super().__init__(logging.INFO)
        self._event, _, self._where = point.partition(":")
        self._is_counting = False
        self._effects = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg not in (COMPONENT_RUNS, COMPONENT_FINISHED):
            return
        (node,) = record.args
        if record.msg == COMPONENT_FINISHED:
            self._is_counting = False
            if self._event == "finished" and self._where == node:
                act()
        elif self._event == "running" and self._where.partition("+")[0] == node:
            seconds = float(self._where.partition("+")[2])
            if seconds:
                timer = threading.Timer(seconds, act)
                timer.daemon = True
                timer.start()
            else:
                act()
        elif self._event == "effect" and self._where.partition(":")[0] == node:
            self._is_counting = True

    def count(self) -> None:
        """An effect is about to happen."""
        if self._is_counting:
            self._effects += 1
            if self._effects == int(self._where.partition(":")[2]):
                act()

    def audit(self, event: str, arguments: tuple) -> None:
        if self._is_counting and (event in EFFECTS or (event == "open" and _is_for_writing(arguments))):
            self.count()


def _is_for_writing(arguments: tuple) -> bool:
    _, mode, flags = arguments
    return bool(set(mode or "") & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal
    disturbance = Disturbance(os.environ["DISTURBED_POINT"])
    logging.getLogger("absl").addHandler(disturbance)
    if os.environ["DISTURBED_POINT"].startswith("effect:"):
        sys.addaudithook(disturbance.audit)
        call, rename = MetadataStore._call, push.rename_to_new

        def counted_call(store, method, *arguments, **more):
            if method.startswith("Put"):
                disturbance.count()
            return call(store, method, *arguments, **more)

        def counted_rename(source, target):  # by renameat2, of which Python knows nothing
            disturbance.count()
            rename(source, target)

        MetadataStore._call, push.rename_to_new = counted_call, counted_rename
    stillhouse()
