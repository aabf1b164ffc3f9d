"""Runs part of a benchmark in a process of its own, with processes beside it that are its devices."""

import json
import os
import subprocess
import sys
from typing import Any

import psutil

from stillhouse.modules.cluster.supervisor import HOST, free_ports
from stillhouse.modules.peak_memory import peak_mb

SERVE = """
import os
from stillhouse.modules.cluster.members import serve
from stillhouse.modules.cluster.spec import cluster_from
serve(cluster_from(os.environ))
"""
ENVIRONMENT = {"TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
PIDS = "STAGE_PIDS"  # in the chief's environment


def stage_pids() -> list[int]:
    """Returns the stages' processes; in the chief."""
    return [int(pid) for pid in os.environ[PIDS].split(",")]


def run_chief(
    module: str, stages: int, arguments: list[str], environment: dict[str, str], seconds: float | None = None
) -> tuple[Any, list[float | None]]:
    """Runs `python -m MODULE ARGUMENTS` as the chief of a cluster of stages, each pinned to a core.

    Args:
      module: of which the last line of output is JSON.
      stages: processes that are devices.
      arguments: of the command line.
      environment: of all processes.
      seconds: after which the chief is killed.

    Returns:
      What it told, and the peak resident set of each stage, MB.

    Raises:
      CalledProcessError, TimeoutExpired: of the chief.
    """
    ports = free_ports(stages + 1)
    addresses = {"chief": [f"{HOST}:{ports[0]}"], "stage": [f"{HOST}:{port}" for port in ports[1:]]}

    def of_task(kind: str, index: int) -> dict[str, str]:
        task = {"cluster": addresses, "task": {"type": kind, "index": index}}
        return os.environ | ENVIRONMENT | environment | {"TF_CONFIG": json.dumps(task)}

    python = [sys.executable, "-W", "ignore"]
    servers = [
        subprocess.Popen([*python, "-c", SERVE], env=of_task("stage", index), stdin=subprocess.DEVNULL)
        for index in range(stages)
    ]
    try:
        for index, server in enumerate(servers):
            psutil.Process(server.pid).cpu_affinity([index % psutil.cpu_count()])
        done = subprocess.run(
            [*python, "-m", module, *arguments],
            env=of_task("chief", 0) | {PIDS: ",".join(str(server.pid) for server in servers)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=seconds,
        )
        return json.loads(done.stdout.splitlines()[-1]), [peak_mb(server.pid) for server in servers]
    finally:
        for server in servers:
            server.kill()
            server.wait()
