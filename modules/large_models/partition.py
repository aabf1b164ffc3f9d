"""Cuts a network into contiguous stages: measures its layers and minimises the largest stage exactly."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.segments import bytes_of_variables, cut, shape_of, units_of

REPETITIONS = 3


@dataclass(frozen=True)
class Cost:
    """Cost of a unit of a network."""

    name: str  # name of the layer
    seconds: float  # forward and backward pass of a micro-batch
    parameter_bytes: int
    activation_bytes: int  # per micro-batch


@dataclass(frozen=True)
class Partition:
    """Cuts of a network into stages, and their expected cost."""

    cut_indices: list[int]  # indices of the units after which to cut
    seconds: list[float]  # per micro-batch, by stage
    bytes: list[int]  # by stage

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.seconds)

    def bubble(self, micro_batches: int) -> float:
        """Returns the fraction of time in which a stage is idle: (K - 1) / (M + K - 1), GPipe section 2."""
        return (self.stages - 1) / (micro_batches + self.stages - 1)

    def speed_up(self, micro_batches: int) -> float:
        """Returns the expected speed-up relative to one device, with free communication."""
        if not sum(self.seconds):
            return micro_batches * self.stages / (micro_batches + self.stages - 1)
        return sum(self.seconds) * micro_batches / (max(self.seconds) * (micro_batches + self.stages - 1))


def measure(network: keras.Model, batch: int) -> list[Cost]:
    """Returns the cost of each unit of the network, run alone on random inputs of `batch` examples."""
    units = units_of(network)
    segments = cut(network, list(range(1, len(units))))
    costs, counted = [], set()
    for unit, segment in zip(units, segments, strict=True):
        variables = [weight for weight in unit.layer.weights if id(weight) not in counted]
        counted |= {id(weight) for weight in variables}
        parameters = bytes_of_variables(variables)
        inputs = [_random(tensor, batch) for tensor in segment.network.inputs]
        seconds = min(_seconds(segment.network, inputs) for _ in range(REPETITIONS))
        costs.append(Cost(unit.layer.name, seconds, parameters, unit.bytes * batch))
    return costs


def _random(tensor, batch: int) -> tf.Tensor:
    shape = shape_of(tensor, batch)
    dtype = tf.as_dtype(tensor.dtype)
    return tf.random.normal(shape, dtype=dtype) if dtype.is_floating else tf.zeros(shape, dtype)


def _seconds(network: keras.Model, inputs: list[tf.Tensor]) -> float:
    began = time.perf_counter()
    with tf.GradientTape() as tape:
        tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
        outputs = tf.nest.flatten(network(inputs, training=False))
        differentiable = [output for output in outputs if output.dtype.is_floating]
    gradients = tape.gradient(differentiable, [inputs, network.trainable_variables])
    for result in tf.nest.flatten([outputs, gradients]):
        if result is not None:
            _ = tf.convert_to_tensor(result).numpy()
    return time.perf_counter() - began


def balance(
    costs: Sequence[Cost],
    stages: int,
    by: str = "time",
    micro_batches: int = 1,
    budget: int | None = None,
    copies: int = 3,
) -> Partition:
    """Returns the cuts that minimise the largest stage, by dynamic programming over all cuts.

    Args:
      costs: the costs of the units.
      stages: the number of stages, K.
      by: "time", seconds of a stage, or "memory", its bytes.
      micro_batches: number of micro-batches whose activations a stage keeps.
      budget: maximum bytes of a stage.
      copies: copies of each parameter: itself, its gradient, the optimiser's state.

    Raises:
      UserError: more stages than layers, or no cuts meet the budget; the message has the smallest budget that would.
    """
    count = len(costs)
    if stages > count:
        raise UserError(f"parallelism.stages: found {stages}; expected at most {count} (layers); lower it")
    memory = [cost.parameter_bytes * copies + cost.activation_bytes * micro_batches for cost in costs]
    weight = [cost.seconds for cost in costs] if by == "time" else memory
    if budget is not None:
        smallest = max(_sums(memory, _best(memory, memory, stages, None)))
        if smallest > budget:
            raise UserError(
                f"parallelism.memory_budget_mb: found {budget / 1e6:,.1f}; expected at least {smallest / 1e6:,.1f} for "
                f"{stages} stages; raise it"
            )
    cut_indices = _best(weight, memory, stages, budget)
    return partition_at(costs, cut_indices, micro_batches, copies)


def partition_at(costs: Sequence[Cost], cut_indices: list[int], micro_batches: int = 1, copies: int = 3) -> Partition:
    """Returns the partition at `cut_indices`, with its expected costs; arguments as for `balance`."""
    memory = [cost.parameter_bytes * copies + cost.activation_bytes * micro_batches for cost in costs]
    return Partition(cut_indices, _sums([cost.seconds for cost in costs], cut_indices), _sums(memory, cut_indices))


def _sums(values: Sequence[float], cut_indices: Sequence[int]) -> list:
    bounds = [0, *cut_indices, len(values)]
    return [sum(values[begin:end]) for begin, end in pairwise(bounds)]


def _best(weight: Sequence[float], memory: Sequence[int], stages: int, budget: int | None) -> list[int]:
    """Returns the cuts that minimise the largest sum of `weight`, of those whose sums of `memory` meet the budget."""
    count = len(weight)
    total_weight, total_bytes = [0.0], [0]
    for unit_weight, unit_bytes in zip(weight, memory, strict=True):
        total_weight.append(total_weight[-1] + unit_weight)
        total_bytes.append(total_bytes[-1] + unit_bytes)
    # best[end]: the minimal largest stage of the first `end` units, in the number of stages of this iteration.
    best = [0.0] + [float("inf")] * count
    choices = []
    for _ in range(stages):
        after, choice = [float("inf")] * (count + 1), [0] * (count + 1)
        for end in range(1, count + 1):
            for begin in range(end):
                if budget is not None and total_bytes[end] - total_bytes[begin] > budget:
                    continue
                largest = max(best[begin], total_weight[end] - total_weight[begin])
                if largest < after[end]:
                    after[end], choice[end] = largest, begin
        best = after
        choices.append(choice)
    cut_indices, end = [], count
    for choice in reversed(choices[1:]):
        end = choice[end]
        cut_indices.append(end)
    return cut_indices[::-1]
