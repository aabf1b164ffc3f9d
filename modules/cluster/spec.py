"""Which processes train together, and which of them this one is: TF_CONFIG, read once and handed down as a value."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from stillhouse.modules.errors import UserError

# Processes that are the devices of one: stages of a network, in the cluster's tasks of that name.
STAGES = "stage"
TF_CONFIG = "TF_CONFIG"  # name of the environment variable


@dataclass(frozen=True)
class ClusterSpec:
    """The processes of a training job, and this one's task among them."""

    addresses: Mapping[str, list[str]]  # host:port of every process, by the kind of its task: chief, worker, ps, stage
    kind: str  # of this process's task
    index: int  # among those of its kind

    @property
    def task_name(self) -> str:
        """Name of this process, such as worker-0."""
        return f"{self.kind}-{self.index}"

    @property
    def address(self) -> str:
        """Where this process listens, host:port."""
        return self.addresses[self.kind][self.index]


def cluster_from(environment: Mapping[str, str], workers_are_stages: bool = False) -> ClusterSpec | None:
    """Returns the cluster that TF_CONFIG describes; None if it is not there.

    Args:
      environment: variables of this process.
      workers_are_stages: take workers for stages; the Training Operator has no type of that name.

    Raises:
      UserError: it is no JSON, or names a task that is not in its cluster.
    """
    text = environment.get(TF_CONFIG)
    if not text:
        return None
    try:
        described = json.loads(text)
        addresses, task = dict(described["cluster"]), described["task"]
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'TF_CONFIG: expected {{"cluster": {{type: [address, ...]}}, "task": {{"type", "index"}}}}, found {text!r}'
        ) from error
    if kind != "evaluator" and not 0 <= index < len(addresses.get(kind, [])):
        counts = ", ".join(f"{len(listed)} {name}" for name, listed in addresses.items())
        raise UserError(f"TF_CONFIG: found task {kind} {index}; expected a task of the cluster, which has {counts}")
    cluster = ClusterSpec(addresses, kind, index)
    return _with_stages(cluster) if workers_are_stages else cluster


def _with_stages(cluster: ClusterSpec) -> ClusterSpec:
    renamed = {STAGES if kind == "worker" else kind: listed for kind, listed in cluster.addresses.items()}
    return replace(cluster, addresses=renamed, kind=STAGES if cluster.kind == "worker" else cluster.kind)


def is_chief(cluster: ClusterSpec | None) -> bool:
    """Returns whether this process writes checkpoints and the model: alone, the chief, or worker 0 without one."""
    return cluster is None or cluster.task_name == in_step(cluster)[0]


def in_step(cluster: ClusterSpec | None) -> list[str]:
    """Returns the names of the processes that train in step, this one's chief first; ["chief-0"] if it is alone."""
    if cluster is None or "ps" in cluster.addresses:
        return ["chief-0"]
    return [f"{kind}-{index}" for kind in ("chief", "worker") for index in range(len(cluster.addresses.get(kind, [])))]
