"""A process that has imported everything and forks for each command, so that a test does not wait for TensorFlow.

    python tests/forking.py serve SOCKET                  the process that forks; it ends when its standard input does
    python tests/forking.py run SOCKET MODULE ARGUMENT...  `python -m MODULE ARGUMENT...` in a fork, with the caller's
                                                          folder, environment and standard streams

A fork is what a fresh process would be after its imports: TensorFlow, Beam and gRPC have started no thread yet.
The client may be started, sent SIGINT or SIGTERM, and killed as the command itself: its end is the end of the fork.
"""

import contextlib
import functools
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

MAIN = {"stillhouse": "stillhouse.pipelines.cli.app"}  # where the main() of a package is
IMPORTED = (
    "stillhouse.pipelines.cli.app",
    "stillhouse.pipelines.local.run",
    "stillhouse.pipelines.kubeflow.compile",
    "stillhouse.pipelines.kubeflow.entrypoint",
    "stillhouse.pipelines.kubeflow.changes",
    "stillhouse.modules.training.launch",
    "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",
    "tfx.orchestration.kubeflow.v2.file_based_example_gen.driver",
    "tfx.components.transform.executor",
    "tfx.components.evaluator.executor",
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "matplotlib.figure",
)
SECONDS_BETWEEN_LOOKS = 0.02
SECONDS_TO_IMPORT = 300
ENDED = 0.5  # seconds for the server to end by itself


def serve(path: str) -> None:
    """Imports, then forks for whoever connects."""
    import importlib

    for module in IMPORTED:
        importlib.import_module(module)
    # Threads of OpenBLAS and jemalloc are there, and are started anew in a fork by these libraries themselves.
    assert threading.active_count() == 1, f"an import has started {threading.enumerate()}"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who serve a connection
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}.starting")
        server.listen()
        os.rename(f"{path}.starting", path)  # whoever finds it can connect
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> None:
    """Forks once more, for the command, and tells the client its process id and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 20)
    command = os.fork()
    if command == 0:
        connection.close()
        _become(json.loads(data), files)
    for file in files:
        os.close(file)
    connection.sendall(f"{command}\n".encode())
    while True:
        ended, status = os.waitpid(command, os.WNOHANG)
        if ended:
            with contextlib.suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        if select.select([connection], [], [], SECONDS_BETWEEN_LOOKS)[0]:  # the client is gone
            os.kill(command, signal.SIGKILL)
            os.waitpid(command, 0)
            os._exit(0)


def _become(request: dict, files: list[int]) -> None:
    """Turns this process into `python -m MODULE ARGUMENT...`; does not return."""
    import atexit
    import importlib

    code = 1
    try:
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        own = [entry for entry in request["environment"].get("PYTHONPATH", "").split(os.pathsep) if entry]
        sys.path[:] = [request["folder"], *own, *sys.path[1:]]
        sys.argv[:] = [request["module"], *request["arguments"]]
        random.seed()
        importlib.import_module(MAIN.get(request["module"], request["module"])).main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(path: str, module: str, *arguments: str) -> int:
    """Has the server run the command; returns its exit code, negative for a signal."""
    request = {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "module": module,
        "arguments": arguments,
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        text = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(connection, [text], [0, 1, 2])
        connection.sendall(text[sent:])
        answers = connection.makefile()
        command = int(answers.readline())
        for forwarded in (signal.SIGINT, signal.SIGTERM):
            signal.signal(forwarded, lambda number, _: os.kill(command, number))
        return int(answers.readline())


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Starts a server; gives its socket, which is there once it has imported everything."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _serving(Path(folder))


def _serving(folder: Path) -> Iterator[str]:
    path = str(folder / "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", path],
        stdin=subprocess.PIPE,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
        cwd=folder,
    )
    try:
        yield path
    finally:
        process.stdin.close()
        deadline = time.monotonic() + ENDED
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        process.kill()
        process.wait()


RESOURCES = contextlib.ExitStack()  # of the session
SOCKET = "STILLHOUSE_TESTS_FORK_SERVER"  # environment variable: the server that pytest-xdist's workers share


def start_shared_server() -> None:
    """Starts the server of the processes that this one will start."""
    os.environ[SOCKET] = RESOURCES.enter_context(serving())


@functools.cache
def server() -> str:
    """Returns the socket of the session's server, once it takes commands; it is started when it is first asked for."""
    path = os.environ.get(SOCKET) or RESOURCES.enter_context(serving())
    deadline = time.monotonic() + SECONDS_TO_IMPORT
    while not os.path.exists(path):
        assert time.monotonic() < deadline, "the server that forks has not started; its error stands above"
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return path


def command(module: str, *arguments: str) -> list[str]:
    """Returns the command line of `python -m MODULE ARGUMENT...` in a fork of the session's server."""
    return [sys.executable, "-I", "-S", __file__, "run", server(), module, *arguments]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        sys.path[0] = ""  # not the folder of the tests
        serve(sys.argv[2])
    else:
        code = run(*sys.argv[2:])
        if code < 0:
            if -code != signal.SIGKILL:  # which has no other
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        sys.exit(code)
