"""tf.distribute strategies by name."""

import socket
from urllib.parse import urlsplit

import tensorflow as tf

from stillhouse.modules.cluster.spec import ClusterSpec
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import CLUSTER_STRATEGIES, Strategy

# A smaller variable is kept whole on one parameter server.
MIN_SHARD_BYTES = 256 << 10
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
            f"strategy.devices: found {replicas}; TensorFlow already runs in this process with "
            f"{len(tf.config.list_logical_devices('CPU'))} CPU device(s); start a new process for this training job"
        ) from error


def local_devices(requested_count: int | None) -> list[str]:
    """Returns the names of so many devices: GPUs if there are enough, else logical CPU devices; None: all GPUs, or one.

    Raises:
      UserError: there are fewer.
    """
    gpus = tf.config.list_logical_devices("GPU")
    count = requested_count or len(gpus) or 1
    if count > len(gpus):
        prepare_devices(count)
        available = tf.config.list_logical_devices("CPU")
    else:
        available = gpus
    if count > len(available):
        raise UserError(f"strategy.devices: found {count}; expected at most {len(available)} (devices present)")
    return [device.name for device in available[:count]]


def resolve_auto() -> str:
    """Returns the strategy that fits the hardware of this machine: tpu, mirrored over several GPUs, or one_device."""
    if tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one_device"


def make_strategy(settings: Strategy, cluster: ClusterSpec | None = None) -> tf.distribute.Strategy:
    """Returns the strategy of the settings.

    Args:
      settings: name, devices and the like; numbers of processes are those of the cluster.
      cluster: the processes that it is for; None: this one alone.

    Raises:
      UserError: there are fewer devices than wanted, there is no TPU, or no cluster.
    """
    name = resolve_auto() if settings.name == "auto" else settings.name
    if name in CLUSTER_STRATEGIES:
        if cluster is None:
            raise UserError(f"strategy.name: {name} needs a cluster; found no TF_CONFIG in the environment; set it")
        return _of_processes(name, settings, cluster)
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(local_devices(1)[0])
    if name == "mirrored":
        names = local_devices(settings.devices)
        # The collective operations that it would choose for CPUs serve one model per process: those of a second one,
        # with weights of another shape, end in "Shape mismatch in the collective instance".
        on_cpus = tf.distribute.ReductionToOneDevice() if "CPU" in names[0] else None
        return tf.distribute.MirroredStrategy(names, cross_device_ops=on_cpus)
    if name == "central_storage":
        names = local_devices(settings.devices)
        # Without a parameter device it would place variables on the CPU, device 0, which is meant.
        return tf.distribute.experimental.CentralStorageStrategy(names, "/CPU:0")
    return _tpu(settings.tpu)


def _of_processes(name: str, settings: Strategy, cluster: ClusterSpec) -> tf.distribute.Strategy:
    if name == "multi_worker_mirrored":
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=_resolver(cluster))
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
        min_shard_bytes=MIN_SHARD_BYTES, max_shards=settings.parameter_servers or 1
    )
    return tf.distribute.ParameterServerStrategy(_resolver(cluster), variable_partitioner=partitioner)


def _resolver(cluster: ClusterSpec) -> tf.distribute.cluster_resolver.ClusterResolver:
    """Returns the cluster in TensorFlow's words; TFConfigClusterResolver would read the environment once more."""
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster.addresses),
        task_type=cluster.kind,
        task_id=cluster.index,
        # Asked without initialising TensorFlow, which has to happen after the cluster is known.
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )


def is_asynchronous(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether replicas update the variables each in its own time."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def _tpu(name: str | None) -> tf.distribute.Strategy:
    where = f"the TPU {name!r}" if name else "a TPU of this machine"
    nothing = f"strategy.name: tpu: {where} was not found; set strategy.tpu, or another strategy.name"
    if name is None and not tf.config.list_physical_devices("TPU"):
        raise UserError(nothing)
    # A name is resolved by Google's service; both are checked first, because TensorFlow would wait for minutes.
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
