"""tf.distribute strategies by name."""

import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit

import tensorflow as tf

from stillhouse.modules.errors import UserError

# Those whose replicas are processes of their own, which find each other by TF_CONFIG.
OF_PROCESSES = ("multi_worker_mirrored", "parameter_server")
# Processes that are the devices of one: stages of a network, in the cluster's tasks of that name.
STAGES = "stage"
NAMES = ("auto", "one_device", "mirrored", "central_storage", *OF_PROCESSES, "tpu")

# A variable smaller than this stands on one parameter server whole.
LEAST_SHARD_BYTES = 256 << 10
SECONDS_TO_REACH_A_TPU = 5.0


def prepare_devices(replicas: int) -> None:
    """Makes at least `replicas` devices available: GPUs where there are enough, else logical CPU devices.

    TensorFlow fixes its devices at its first operation, so a process that will train with more than one
    replica calls this before it does anything else with TensorFlow.

    Raises:
      UserError: TensorFlow has already fixed fewer devices than that in this process.
    """
    if replicas <= 1 or len(tf.config.list_physical_devices("GPU")) >= replicas:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        if len(tf.config.get_logical_device_configuration(cpu) or []) < replicas:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    except RuntimeError as error:
        raise UserError(
            f"strategy.devices: {replicas} replicas are wanted, but TensorFlow already runs in this process with "
            f"{len(tf.config.list_logical_devices('CPU'))} CPU device(s); start a new process for this training"
        ) from error


def local_devices(wanted: int | None) -> list[str]:
    """Returns the names of so many devices: GPUs if there are enough, else logical CPU devices; None: all GPUs, or one.

    Raises:
      UserError: there are fewer.
    """
    gpus = tf.config.list_logical_devices("GPU")
    count = wanted or len(gpus) or 1
    if count > len(gpus):
        prepare_devices(count)
        available = tf.config.list_logical_devices("CPU")
    else:
        available = gpus
    if count > len(available):
        raise UserError(f"strategy.devices: {count} replicas are wanted, {len(available)} devices are there")
    return [device.name for device in available[:count]]


def resolve_auto() -> str:
    """Returns the strategy that fits the hardware of this machine: tpu, mirrored over several GPUs, or one_device."""
    if tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def tf_config() -> dict[str, Any] | None:
    """Returns the cluster that this process belongs to, from the environment's TF_CONFIG; None if there is none.

    Raises:
      UserError: it is no JSON, or names a task that is not in its cluster.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        found = json.loads(text)
        cluster, task = found["cluster"], found["task"]
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'TF_CONFIG: expected {{"cluster": {{type: [address, ...]}}, "task": {{"type", "index"}}}}, found {text!r}'
        ) from error
    if kind != "evaluator" and not 0 <= index < len(cluster.get(kind, [])):
        there = ", ".join(f"{len(addresses)} {name}" for name, addresses in cluster.items())
        raise UserError(f"TF_CONFIG: this process is {kind} {index}, but the cluster has only {there}")
    return {"cluster": cluster, "task": {"type": kind, "index": index}}


def is_chief(cluster: dict[str, Any] | None) -> bool:
    """Returns whether this process writes checkpoints and the model: it is alone, the chief, or worker 0 without one.

    Args:
      cluster: as `tf_config` returns it.
    """
    return cluster is None or task_name(cluster) == in_step(cluster)[0]


def task_name(cluster: dict[str, Any]) -> str:
    """Returns the name of this process, such as worker-0; `cluster` is as `tf_config` returns it."""
    return "{type}-{index}".format(**cluster["task"])


def in_step(cluster: dict[str, Any] | None) -> list[str]:
    """Returns the names of the processes that train in step, this one's chief first; ["chief-0"] if it is alone.

    Args:
      cluster: as `tf_config` returns it.
    """
    if cluster is None or "ps" in cluster["cluster"]:
        return ["chief-0"]
    return [f"{kind}-{index}" for kind in ("chief", "worker") for index in range(len(cluster["cluster"].get(kind, [])))]


def make_strategy(
    name: str,
    devices: int | None = None,
    workers: int | None = None,
    parameter_servers: int | None = None,
    tpu: str | None = None,
) -> tf.distribute.Strategy:
    """Returns the strategy `name`.

    Args:
      name: one of NAMES.
      devices: replicas of mirrored and central_storage in this process; None: all GPUs, or one CPU.
      workers: processes of multi_worker_mirrored and parameter_server; the cluster itself is in TF_CONFIG.
      parameter_servers: likewise; large variables are cut into so many shards.
      tpu: name or grpc:// address of a TPU; None: the one of this machine.

    Raises:
      UserError: the name is unknown, there are fewer devices than wanted, there is no TPU, or no cluster.
    """
    if name == "auto":
        name = resolve_auto()
    if name in OF_PROCESSES and tf_config() is None:
        raise UserError(f"strategy.name: {name} needs a cluster, and there is no TF_CONFIG in the environment")
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(local_devices(1)[0])
    if name == "mirrored":
        names = local_devices(devices)
        # The collective operations that it would choose for CPUs serve one model per process: those of a second one,
        # with weights of another shape, end in "Shape mismatch in the collective instance".
        on_cpus = tf.distribute.ReductionToOneDevice() if "CPU" in names[0] else None
        return tf.distribute.MirroredStrategy(names, cross_device_ops=on_cpus)
    if name == "central_storage":
        names = local_devices(devices)
        # Without a parameter device it would place variables on the CPU, device 0, which is meant.
        return tf.distribute.experimental.CentralStorageStrategy(names, "/CPU:0")
    if name == "multi_worker_mirrored":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "parameter_server":
        partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
            min_shard_bytes=LEAST_SHARD_BYTES, max_shards=parameter_servers or 1
        )
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        return tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    if name == "tpu":
        return _tpu(tpu)
    raise UserError(f"strategy.name: {name!r} is unknown; allowed: {', '.join(NAMES)}")


def is_asynchronous(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether replicas update the variables each in its own time."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def _tpu(name: str | None) -> tf.distribute.Strategy:
    where = f"the TPU {name!r}" if name else "a TPU of this machine"
    nothing = f"strategy.name: tpu: {where} is not there; name one in strategy.tpu, or choose another strategy"
    if name is None and not tf.config.list_physical_devices("TPU"):
        raise UserError(nothing)
    # A name is looked up at Google's; both are asked for first, because TensorFlow would wait for minutes.
    address = urlsplit(name) if name and "://" in name else None
    try:
        if address:
            socket.create_connection((address.hostname, address.port or 8470), SECONDS_TO_REACH_A_TPU).close()
        elif name:
            socket.getaddrinfo("metadata.google.internal", 80)
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{nothing} ({next(iter(str(error).splitlines()), '')})") from error
    return tf.distribute.TPUStrategy(resolver)
