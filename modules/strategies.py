"""tf.distribute strategies by name."""

import tensorflow as tf

from modules.errors import UserError


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


def make_strategy(name: str, devices: int | None = None) -> tf.distribute.Strategy:
    """Returns the strategy `name`: "one_device" or "mirrored" over `devices` replicas (None: all GPUs, or one CPU).

    Raises:
      UserError: the name is unknown or there are fewer devices than wanted.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/GPU:0" if gpus else "/CPU:0")
    if name == "mirrored":
        if not gpus or (devices or 0) > len(gpus):
            prepare_devices(devices or 1)
        available = gpus if gpus and (devices or 1) <= len(gpus) else tf.config.list_logical_devices("CPU")
        wanted = devices or (len(gpus) or 1)
        if wanted > len(available):
            raise UserError(f"strategy.devices: {wanted} replicas are wanted, {len(available)} devices are there")
        return tf.distribute.MirroredStrategy([device.name for device in available[:wanted]])
    raise UserError(f"strategy.name: {name!r} is unknown; allowed: one_device, mirrored")
