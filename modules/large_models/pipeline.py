"""Pipeline parallelism: the stages of a network compute different micro-batches at the same time.

GPipe (Huang et al. 2019, section 2): a batch passes in M micro-batches through K stages, each on its own device; the
gradients of the micro-batches are summed to one synchronous update. A stage computes one pass at a time, in the order
of its schedule:
  gpipe  all micro-batches forward, then all of them backward; a stage keeps the activations of M micro-batches
  1f1b   PipeDream-Flush (Narayanan et al. 2021, section 2.2): K - k forward passes ahead, then backward and forward
         passes alternate; stage k keeps the activations of at most K - k micro-batches
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.rematerialisation import recomputed
from stillhouse.modules.large_models.segments import Segment, cut, refuse_activity_regularisers

SCHEDULES = ("gpipe", "1f1b")
CLOCK = "clock"  # name among the totals
FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class Pass:
    """The forward or backward pass of a micro-batch in a stage."""

    kind: str
    stage: int
    micro_batch: int


def order_of(schedule: str, stage: int, stages: int, micro_batches: int) -> list[Pass]:
    """Returns the passes of a stage in order; stages and micro-batches count from 0.

    Raises:
      UserError: the schedule does not exist.
    """
    forward = [Pass(FORWARD, stage, number) for number in range(micro_batches)]
    backward = [Pass(BACKWARD, stage, number) for number in range(micro_batches)]
    if schedule == "gpipe":
        return forward + backward[::-1]
    if schedule == "1f1b":
        ahead = min(stages - stage - 1, micro_batches)
        passes = forward[:ahead]
        for number in range(micro_batches):
            passes += [*forward[ahead + number : ahead + number + 1], backward[number]]
        return passes
    raise UserError(f"parallelism.schedule: found {schedule!r}; expected one of: {', '.join(SCHEDULES)}")


def max_in_flight(schedule: str, stage: int, stages: int, micro_batches: int) -> int:
    """Returns the number of micro-batches whose activations a stage keeps, at most."""
    order = order_of(schedule, stage, stages, micro_batches)
    steps = (1 if current.kind == FORWARD else -1 for current in order)
    return max(accumulate(steps))


def global_order(schedule: str, stages: int, micro_batches: int) -> list[Pass]:
    """Returns the passes of all stages in an order in which each pass follows those it needs."""
    queues = [order_of(schedule, stage, stages, micro_batches) for stage in range(stages)]
    completed: set[Pass] = set()
    order = []
    while any(queues):
        ready = [queue for queue in queues if queue and needs(queue[0], stages) <= completed]
        assert ready, f"the schedule {schedule} waits for itself"
        for queue in ready:
            order.append(queue.pop(0))
        completed |= set(order)
    return order


def needs(current: Pass, stages: int) -> set[Pass]:
    """Returns the passes of the same micro-batch whose results `current` needs."""
    if current.kind == FORWARD:
        return {Pass(FORWARD, current.stage - 1, current.micro_batch)} if current.stage else set()
    if current.stage == stages - 1:
        return {Pass(FORWARD, current.stage, current.micro_batch)}
    return {Pass(BACKWARD, current.stage + 1, current.micro_batch)}


# Maps the outputs of the network and a micro-batch to the sum of the trained losses, float32 [], and totals.
LossOf = Callable[[Any, Any], tuple[tf.Tensor, dict[str, tf.Tensor]]]


class Pipeline:
    """A network in stages."""

    def __init__(
        self,
        network: keras.Model,
        cut_indices: Sequence[int],
        devices: Sequence[Sequence[str]],
        micro_batches: int,
        schedule: str = "gpipe",
        rematerialise: bool = False,
        name: str = "network",
    ):
        """Cuts the network.

        Args:
          network: functional or sequential.
          cut_indices: the indices of the units after which to cut; one fewer than stages.
          devices: the stages' devices, by replica.
          micro_batches: M.
          schedule: one of SCHEDULES.
          rematerialise: whether stages rematerialise their activations in the backward pass, as in GPipe.
          name: the network's name in messages.

        Raises:
          UserError: the network cannot be cut, or the schedule does not exist.
        """
        refuse_activity_regularisers(network, name, "parallelism")
        self._network = network
        self._segments = cut(network, cut_indices)
        self._devices = devices
        self._micro_batches = micro_batches
        self._rematerialise = rematerialise
        self.order = global_order(schedule, len(self._segments), micro_batches)

    @property
    def variables_of_stages(self) -> list[list[tf.Variable]]:
        """The weights of each stage; weights of a layer shared by several stages belong to the first of them."""
        seen: set[int] = set()
        variables = []
        for segment in self._segments:
            own = [weight for weight in segment.network.weights if id(weight) not in seen]
            seen |= {id(weight) for weight in own}
            variables.append(own)
        return variables

    def gradients(
        self,
        inputs: dict[str, tf.Tensor],
        batch: Any,
        loss_of: LossOf,
        variables: Sequence[tf.Variable],
        clocked: bool = False,
    ) -> tuple[list[tf.Tensor | None], dict[str, tf.Tensor]]:
        """Returns the gradients of `variables` and the totals, summed over the micro-batches of a replica's batch.

        Args:
          inputs: the network's inputs, {name: [batch, ...]}.
          batch: nested tensors [batch, ...] that `loss_of` receives, micro-batch by micro-batch.
          loss_of: see LossOf; runs on the device of the last stage.
          variables: the trained variables; those outside the network get gradients from `loss_of` alone.
          clocked: also record in the totals, under CLOCK, begin and end of each pass of `order`, by the clock of its
            process: float64 [passes, 2], seconds. A tf.function reads clocks in program order, which makes the stages
            wait for each other; tf.compat.v1.wrap_function does not.
        """
        # Cut on the device that needs the parts: a tensor travels once, not in parts.
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        devices = self._devices[int(tf.get_static_value(replica))]
        parts = []
        for number in range(self._micro_batches):
            with tf.device(devices[0]):
                own_inputs = _part(inputs, number, self._micro_batches)
            with tf.device(devices[-1]):
                parts.append((own_inputs, _part(batch, number, self._micro_batches)))
        run = _Run(self._network, self._segments, devices, self._rematerialise, loss_of, list(variables), clocked)
        for current in self.order:
            if current.kind == FORWARD:
                run.forward(current.stage, current.micro_batch, *parts[current.micro_batch])
            else:
                run.backward(current.stage, current.micro_batch)
        if clocked:
            run.totals[CLOCK] = tf.stack(run.times)
        return run.sums, run.totals


def _part(tensors: Any, number: int, count: int) -> Any:
    """Returns micro-batch `number` of `count`; sizes differ by at most one, so none is empty given enough examples."""
    examples = tf.shape(tf.nest.flatten(tensors)[0])[0]
    begin, end = number * examples // count, (number + 1) * examples // count
    return tf.nest.map_structure(lambda tensor: tensor[begin:end], tensors)


class _Run:
    """The computation of one batch; created with every trace."""

    def __init__(self, network, segments, devices, rematerialise, loss_of, variables, clocked):
        self._segments: list[Segment] = segments
        self._devices, self._rematerialise, self._loss_of = devices, rematerialise, loss_of
        self._variables, self._clocked = variables, clocked
        self.times: list[tf.Tensor] = []
        self._indices = {id(variable): number for number, variable in enumerate(variables)}
        self._names = dict(zip(map(id, network.inputs), network.input_names, strict=True))
        self._outputs = [id(tensor) for tensor in tf.nest.flatten(network.outputs)]
        self._structure = network.output
        self._values: dict[int, dict[int, tf.Tensor]] = {}  # by micro-batch: values by the ids of KerasTensors
        self._gradients: dict[int, dict[int, tf.Tensor]] = {}  # the same for the loss's gradients
        self._tapes: dict[tuple[int, int], tuple] = {}
        self._last: dict[int, list[tf.Tensor]] = {}  # by stage: results of its last pass
        self.sums: list[tf.Tensor | None] = [None] * len(variables)
        self.totals: dict[str, tf.Tensor] = {}

    def _in_turn(self, stage: int, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the tensors on the stage's device, once its previous pass is complete."""
        with tf.control_dependencies(self._last.get(stage, [])):
            ready = [tf.identity(tensor) for tensor in tensors]
        if self._clocked:
            with tf.control_dependencies(ready):
                began = tf.timestamp()
            with tf.control_dependencies([began]):
                ready = [tf.identity(tensor) for tensor in ready]
            self.times.append(began)
        return ready

    def _ended(self, stage: int, results: list[tf.Tensor]) -> list[tf.Tensor]:
        """Records the results of a stage's last pass; returns them, on a clocked run once its end has been read."""
        self._last[stage] = results
        if self._clocked:
            with tf.control_dependencies(results):
                ended = tf.timestamp()
            self.times.append(tf.stack([self.times.pop(), ended]))
            self._last[stage] = [*results, ended]
            with tf.control_dependencies([ended]):
                return [tf.identity(result) for result in results]
        return results

    def forward(self, stage: int, number: int, inputs: dict[str, tf.Tensor], batch: Any) -> None:
        """Runs the forward pass of a micro-batch in a stage; in the last one also the loss and its gradients."""
        segment = self._segments[stage]
        values = self._values.setdefault(number, {key: inputs[name] for key, name in self._names.items()})
        with tf.device(self._devices[stage]):
            stage_inputs = self._in_turn(stage, [values[key] for key in segment.takes])
            with tf.GradientTape() as tape:
                tape.watch([tensor for tensor in stage_inputs if tensor.dtype.is_floating])
                outputs = (
                    recomputed(segment, stage_inputs) if self._rematerialise else segment(stage_inputs, training=True)
                )
            values |= dict(zip(segment.gives, outputs, strict=True))
            self._tapes[stage, number] = tape, stage_inputs, outputs
            if stage == len(self._segments) - 1:
                self._loss(number, values, batch)
            # Otherwise the next stage might read its clock before this one has.
            values |= dict(zip(segment.gives, self._ended(stage, list(outputs)), strict=True))

    def _loss(self, number: int, values: dict[int, tf.Tensor], batch: Any) -> None:
        outputs = [tf.identity(values[key]) for key in self._outputs]
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss, totals = self._loss_of(tf.nest.pack_sequence_as(self._structure, outputs), batch)
        gradients = tape.gradient(loss, outputs + self._variables)
        self._gradients[number] = {}
        for key, gradient in zip(self._outputs, gradients, strict=False):
            self._add_to(self._gradients[number], key, gradient)
        for variable, gradient in zip(self._variables, gradients[len(outputs) :], strict=True):
            self._add(variable, gradient)
        for name, total in totals.items():
            self.totals[name] = self.totals[name] + total if name in self.totals else total

    @staticmethod
    def _add_to(sums: dict[int, tf.Tensor], key: int, gradient: tf.Tensor | None) -> None:
        if gradient is not None:
            sums[key] = sums[key] + gradient if key in sums else gradient

    def _add(self, variable: tf.Variable, gradient: Any) -> None:
        if gradient is None:
            return
        index = self._indices[id(variable)]
        gradient = tf.convert_to_tensor(gradient)
        self.sums[index] = gradient if self.sums[index] is None else self.sums[index] + gradient

    def backward(self, stage: int, number: int) -> None:
        """Runs the backward pass of a micro-batch in a stage."""
        segment, (tape, stage_inputs, outputs) = self._segments[stage], self._tapes.pop((stage, number))
        gradients = self._gradients[number]
        own = [variable for variable in segment.network.trainable_variables if id(variable) in self._indices]
        with tf.device(self._devices[stage]):
            upstream = [
                gradients[key] if key in gradients else tf.zeros_like(output)
                for key, output in zip(segment.gives, outputs, strict=True)
            ]
            upstream = self._in_turn(stage, upstream)
            results = tape.gradient(outputs, stage_inputs + own, output_gradients=upstream)
            for key, gradient in zip(segment.takes, results, strict=False):
                self._add_to(gradients, key, gradient)
            for variable, gradient in zip(own, results[len(stage_inputs) :], strict=True):
                self._add(variable, gradient)
            self._ended(stage, [tf.convert_to_tensor(gradient) for gradient in results if gradient is not None])
