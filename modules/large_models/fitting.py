"""Reduces the memory of a training job."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.rematerialisation import Plan, Rematerialised, estimate, plan
from stillhouse.modules.large_models.segments import cuts_after
from stillhouse.modules.large_models.swap import Swapped, estimate_swap, refuse_host_as_device
from stillhouse.modules.settings import Memory


def examples_passing(batch_size: int, strategy: tf.distribute.Strategy, memory: Memory) -> int:
    """Returns how many examples of a batch pass through a replica's network at a time.

    Raises:
      UserError: there are more micro-batches than examples.
    """
    of_replica = -(-batch_size // strategy.num_replicas_in_sync)
    if memory.micro_batches > of_replica:
        raise UserError(
            f"memory.micro_batches: found {memory.micro_batches}; expected at most {of_replica} (examples per "
            f"replica); lower it"
        )
    return -(-of_replica // memory.micro_batches)


def prepared(network: keras.Model, memory: Memory, batch: int, name: str) -> Callable:
    """Returns the callable for the forward pass in training, in place of `network`; in the strategy's scope.

    Args:
      network: functional or sequential.
      memory: the settings.
      batch: examples that pass at a time, of which the budget has to hold the activations.
      name: the network's name in messages.

    Raises:
      UserError: the network cannot be cut, no cuts meet the budget, or it is to be swapped from the host to itself.
    """
    if memory.swap != "none":
        return _swapped(network, memory.swap, batch, name)
    if memory.rematerialise == "none":
        return network
    if memory.rematerialise == "auto":
        budget = memory.activation_budget_mb
        chosen: Plan = plan(network, None if budget is None else int(budget * 1e6 / batch))
    else:
        chosen = estimate(network, cuts_after(network, memory.rematerialise, name))
    progress.note(
        f"{name}: {len(chosen.cut_indices)} of {len(chosen.cut_indices) + 1} segments rematerialised in the backward "
        f"pass; activations about {chosen.peak * batch / 1e6:.1f} MB instead of {chosen.whole * batch / 1e6:.1f} MB"
    )
    return Rematerialised(network, chosen.cut_indices, name)


def _swapped(network: keras.Model, cuts: str | list[str], batch: int, name: str) -> Swapped:
    refuse_host_as_device(tf.distribute.get_strategy().extended.worker_devices, name)
    cut_indices = plan(network).cut_indices if cuts == "auto" else cuts_after(network, cuts, name)
    chosen = estimate_swap(network, cut_indices)
    progress.note(
        f"{name}: activations of {len(cut_indices)} of {len(cut_indices) + 1} blocks offloaded to the host; about "
        f"{chosen.peak * batch / 1e6:.1f} MB of {chosen.whole * batch / 1e6:.1f} MB on the device at a time"
    )
    return Swapped(network, cut_indices, name)
