"""What can be said before a run about a network that shall be cut."""

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.segments import cuts_after, refuse_activity_regularisers, units_of
from stillhouse.modules.large_models.swap import refuse_host_as_device
from stillhouse.modules.settings import Memory, Parallelism


def check_network(network: keras.Model, memory: Memory, parallelism: Parallelism, name: str) -> None:
    """Checks that the network can be cut as the settings want it.

    Raises:
      UserError: it cannot; the message has the network's `name`.
    """
    for setting in ("rematerialise", "swap"):
        cuts = getattr(memory, setting)
        if cuts != "none":
            refuse_activity_regularisers(network, name, f"memory.{setting}")
            if cuts != "auto":
                cuts_after(network, cuts, name)
    if memory.swap != "none" and not any(map(tf.config.list_physical_devices, ("GPU", "TPU"))):
        refuse_host_as_device(["CPU:0"], name)
    if parallelism.stages > 1:
        refuse_activity_regularisers(network, name, "parallelism")
        layers = len(units_of(network))
        if parallelism.stages > layers:
            raise UserError(
                f"{name}: parallelism.stages: found {parallelism.stages}; expected at most {layers} (layers); lower it"
            )
