import re
import socket

import pytest

from stillhouse.modules.cluster import members
from stillhouse.modules.cluster.spec import ClusterSpec
from stillhouse.modules.errors import MachineError, UserError


def cluster(index=0, port=1):
    return ClusterSpec({"worker": [f"127.0.0.1:{port}", "127.0.0.1:2"]}, "worker", index)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"port of worker 0, 127.0.0.1:{port}, is in use"):
            members.check_port(cluster(port=port))
    members.check_port(cluster(port=port))


def test_a_process_that_does_not_come_up_is_named():
    with socket.socket() as there, socket.socket() as gone:
        there.bind(("127.0.0.1", 0))
        there.listen()
        gone.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in (there, gone)]
        stages = ClusterSpec({"stage": addresses}, "chief", 0)
        with pytest.raises(MachineError, match=rf"stage 1 \({addresses[1]}\) did not start within 0.1 s"):
            members.wait_for(stages, "stage", 0.1)


def test_different_versions_of_tensorflow_are_named(tmp_path, monkeypatch):
    folder = str(tmp_path)
    members.announce(folder, cluster(0))
    members.check_versions(folder, cluster(0))
    version = re.escape(members.tf.__version__)
    monkeypatch.setattr(members.tf, "__version__", "2.99.0")
    members.announce(folder, cluster(1, port=7))  # of an earlier start, with other ports
    members.check_versions(folder, cluster(0))
    members.announce(folder, cluster(1))
    with pytest.raises(UserError, match=rf"worker-0 {version}, worker-1 2\.99\.0; install one"):
        members.check_versions(folder, cluster(0))
