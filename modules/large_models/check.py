"""What can be said before a run about a network that shall be cut."""

import tf_keras as keras

from modules.errors import UserError
from modules.large_models.memory import Memory
from modules.large_models.parallelism import Parallelism
from modules.large_models.rematerialisation import refuse_activity_regularisers
from modules.large_models.segments import cuts_after, units_of


def check_network(network: keras.Model, memory: Memory, parallelism: Parallelism, who: str) -> None:
    """Checks that the network can be cut as the settings want it.

    Raises:
      UserError: it cannot; `who` names it.
    """
    if memory.rematerialise != "none":
        refuse_activity_regularisers(network, who, "memory.rematerialise")
        if memory.rematerialise != "auto":
            cuts_after(network, memory.rematerialise, who)
    if parallelism.stages > 1:
        refuse_activity_regularisers(network, who, "parallelism")
        layers = len(units_of(network))
        if parallelism.stages > layers:
            raise UserError(
                f"{who}: parallelism.stages: {parallelism.stages} stages are wanted, but there are {layers} layers"
            )
