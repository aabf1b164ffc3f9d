"""A process of a cluster: what has to hold before it works with the others, and its work for a chief."""

import errno
import json
import os
import socket
import time

import tensorflow as tf

from stillhouse.modules.cluster.spec import ClusterSpec
from stillhouse.modules.errors import MachineError, UserError

FOLDER = "members"
SECONDS_BETWEEN_TRIES = 0.5


def check_port(cluster: ClusterSpec) -> None:
    """Checks that this process can listen where TF_CONFIG says.

    Raises:
      MachineError: another program listens there.
    """
    address = cluster.address
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(address.rpartition(":")[2])))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise MachineError(
                f"TF_CONFIG: the port of {cluster.kind} {cluster.index}, {address}, is in use by another "
                f"program; stop it or change the port"
            ) from error


def announce(folder: str, cluster: ClusterSpec) -> None:
    """Writes this process's version of TensorFlow into the folder that the cluster shares."""
    tf.io.gfile.makedirs(os.path.join(folder, FOLDER))
    with tf.io.gfile.GFile(os.path.join(folder, FOLDER, f"{cluster.task_name}.json"), "w") as file:
        json.dump({"tensorflow": tf.__version__, "cluster": cluster.addresses}, file)


def check_versions(folder: str, cluster: ClusterSpec) -> None:
    """Checks that all who announced themselves run this process's TensorFlow; called when all have joined.

    Raises:
      UserError: there are several versions; the message names them.
    """
    versions = {}
    for path in tf.io.gfile.glob(os.path.join(folder, FOLDER, "*.json")):
        with tf.io.gfile.GFile(path) as file:
            announcement = json.load(file)
        if announcement["cluster"] == cluster.addresses:  # else it is left from another start
            versions[os.path.basename(path).removesuffix(".json")] = announcement["tensorflow"]
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{task} {version}" for task, version in sorted(versions.items()))
        raise UserError(f"the cluster's processes run different versions of TensorFlow: {listed}; install one version")


def wait_for(cluster: ClusterSpec, kind: str, seconds: float) -> None:
    """Waits until all processes of a kind listen.

    Raises:
      MachineError: one does not; it is named.
    """
    deadline = time.monotonic() + seconds
    for index, address in enumerate(cluster.addresses[kind]):
        host, _, port = address.rpartition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=SECONDS_BETWEEN_TRIES).close()
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise MachineError(
                        f"TF_CONFIG: {kind} {index} ({address}) did not start within {seconds:g} s: {error}"
                    ) from error
                time.sleep(SECONDS_BETWEEN_TRIES)


def serve(cluster: ClusterSpec) -> None:
    """Does what the chief of a cluster asks, until this process is ended."""
    tf.distribute.Server(
        cluster.addresses, job_name=cluster.kind, task_index=cluster.index, protocol="grpc", start=True
    ).join()
