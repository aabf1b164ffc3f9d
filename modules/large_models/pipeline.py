"""Pipeline parallelism: the stages of a network work on different micro-batches at the same time.

GPipe (Huang et al. 2019, section 2): a batch passes in M micro-batches through K stages, each on a device of its own;
the gradients of the micro-batches are added up to one synchronous update. A stage does one thing at a time, in the
order of its schedule:
  gpipe  all micro-batches forward, then all of them backward; a stage keeps the activations of M micro-batches
  1f1b   PipeDream-Flush (Narayanan et al. 2021, section 2.2): K - k forward passes ahead, then one backward and one
         forward pass in turn; stage k keeps the activations of at most K - k micro-batches
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
CLOCK = "clock"  # among the totals
FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class Pass:
    """A micro-batch in a stage, one way or the other."""

    kind: str
    stage: int
    micro_batch: int


def order_of(schedule: str, stage: int, stages: int, micro_batches: int) -> list[Pass]:
    """Returns what a stage does, in order; stages and micro-batches count from 0.

    Raises:
      UserError: the schedule is unknown.
    """
    forward = [Pass(FORWARD, stage, number) for number in range(micro_batches)]
    backward = [Pass(BACKWARD, stage, number) for number in range(micro_batches)]
    if schedule == "gpipe":
        return forward + backward[::-1]
    if schedule == "1f1b":
        ahead = min(stages - stage - 1, micro_batches)
        found = forward[:ahead]
        for number in range(micro_batches):
            found += [*forward[ahead + number : ahead + number + 1], backward[number]]
        return found
    raise UserError(f"parallelism.schedule: found {schedule!r}; allowed: {', '.join(SCHEDULES)}")


def most_in_flight(schedule: str, stage: int, stages: int, micro_batches: int) -> int:
    """Returns of how many micro-batches a stage keeps the activations at the most."""
    steps = (1 if one.kind == FORWARD else -1 for one in order_of(schedule, stage, stages, micro_batches))
    return max(accumulate(steps))


def global_order(schedule: str, stages: int, micro_batches: int) -> list[Pass]:
    """Returns the passes of all stages in an order in which each finds what it needs."""
    left = [order_of(schedule, stage, stages, micro_batches) for stage in range(stages)]
    done: set[Pass] = set()
    found = []
    while any(left):
        ready = [queue for queue in left if queue and needs(queue[0], stages) <= done]
        assert ready, f"the schedule {schedule} waits for itself"
        for queue in ready:
            found.append(queue.pop(0))
        done |= set(found)
    return found


def needs(one: Pass, stages: int) -> set[Pass]:
    """Returns the passes, of the same micro-batch, whose outcome a pass works on."""
    if one.kind == FORWARD:
        return {Pass(FORWARD, one.stage - 1, one.micro_batch)} if one.stage else set()
    if one.stage == stages - 1:
        return {Pass(FORWARD, one.stage, one.micro_batch)}
    return {Pass(BACKWARD, one.stage + 1, one.micro_batch)}


# From the outputs of the network and a micro-batch to the sum of the losses that is trained, float32 [], and totals.
LossOf = Callable[[Any, Any], tuple[tf.Tensor, dict[str, tf.Tensor]]]


class Pipeline:
    """A network in stages."""

    def __init__(
        self,
        network: keras.Model,
        places: Sequence[int],
        devices: Sequence[Sequence[str]],
        micro_batches: int,
        schedule: str = "gpipe",
        rematerialise: bool = False,
        who: str = "network",
    ):
        """Cuts the network.

        Args:
          network: functional or sequential.
          places: after which units to cut; one less than there are stages.
          devices: of the stages of each replica.
          micro_batches: M.
          schedule: one of SCHEDULES.
          rematerialise: stages compute their activations again in the backward pass, as GPipe does.
          who: names the network in messages.

        Raises:
          UserError: the network cannot be cut, or the schedule is unknown.
        """
        refuse_activity_regularisers(network, who, "parallelism")
        self._network = network
        self._segments = cut(network, places)
        self._devices = devices
        self._micro_batches = micro_batches
        self._rematerialise = rematerialise
        self.order = global_order(schedule, len(self._segments), micro_batches)

    @property
    def variables_of_stages(self) -> list[list[tf.Variable]]:
        """The weights of each stage; those of a layer that several stages share belong to the first of them."""
        seen: set[int] = set()
        found = []
        for segment in self._segments:
            own = [one for one in segment.network.weights if id(one) not in seen]
            seen |= {id(one) for one in own}
            found.append(own)
        return found

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
          inputs: of the network, {name: [batch, ...]}.
          batch: nested tensors [batch, ...] that `loss_of` gets, micro-batch by micro-batch.
          loss_of: see above; runs on the device of the last stage.
          variables: what is trained; those that are not the network's get gradients from `loss_of` alone.
          clocked: also note in the totals, under CLOCK, when each pass of `order` began and ended, by the clock of its
            process: float64 [passes, 2], seconds. A tf.function reads clocks in the order of the program, whereby the
            stages wait for each other; tf.compat.v1.wrap_function does not.
        """
        # Cut where they are wanted: a tensor travels once, not in parts.
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        devices = self._devices[int(tf.get_static_value(replica))]
        parts = []
        for number in range(self._micro_batches):
            with tf.device(devices[0]):
                own_inputs = _part(inputs, number, self._micro_batches)
            with tf.device(devices[-1]):
                parts.append((own_inputs, _part(batch, number, self._micro_batches)))
        run = _Run(self._network, self._segments, devices, self._rematerialise, loss_of, list(variables), clocked)
        for one in self.order:
            if one.kind == FORWARD:
                run.forward(one.stage, one.micro_batch, *parts[one.micro_batch])
            else:
                run.backward(one.stage, one.micro_batch)
        if clocked:
            run.totals[CLOCK] = tf.stack(run.times)
        return run.sums, run.totals


def _part(tensors: Any, number: int, of: int) -> Any:
    """Returns a micro-batch; sizes differ by one at the most, so that none is empty as long as there are enough."""
    examples = tf.shape(tf.nest.flatten(tensors)[0])[0]
    begin, end = number * examples // of, (number + 1) * examples // of
    return tf.nest.map_structure(lambda tensor: tensor[begin:end], tensors)


class _Run:
    """One batch on its way; built anew with every trace."""

    def __init__(self, network, segments, devices, rematerialise, loss_of, variables, clocked):
        self._segments: list[Segment] = segments
        self._devices, self._rematerialise, self._loss_of = devices, rematerialise, loss_of
        self._variables, self._clocked = variables, clocked
        self.times: list[tf.Tensor] = []
        self._places = {id(variable): number for number, variable in enumerate(variables)}
        self._names = dict(zip(map(id, network.inputs), network.input_names, strict=True))
        self._outputs = [id(tensor) for tensor in tf.nest.flatten(network.outputs)]
        self._structure = network.output
        self._known: dict[int, dict[int, tf.Tensor]] = {}  # by micro-batch: values by the ids of KerasTensors
        self._gradients: dict[int, dict[int, tf.Tensor]] = {}  # likewise, of the loss
        self._tapes: dict[tuple[int, int], tuple] = {}
        self._last: dict[int, list[tf.Tensor]] = {}  # what a stage has done last
        self.sums: list[tf.Tensor | None] = [None] * len(variables)
        self.totals: dict[str, tf.Tensor] = {}

    def _in_turn(self, stage: int, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the tensors on the stage's device, once what it has done before is done."""
        with tf.control_dependencies(self._last.get(stage, [])):
            ready = [tf.identity(one) for one in tensors]
        if self._clocked:
            with tf.control_dependencies(ready):
                began = tf.timestamp()
            with tf.control_dependencies([began]):
                ready = [tf.identity(one) for one in ready]
            self.times.append(began)
        return ready

    def _ended(self, stage: int, done: list[tf.Tensor]) -> None:
        """Notes what a stage has done last."""
        self._last[stage] = done
        if self._clocked:
            with tf.control_dependencies(done):
                ended = tf.timestamp()
            self.times.append(tf.stack([self.times.pop(), ended]))
            self._last[stage] = [*done, ended]

    def forward(self, stage: int, number: int, inputs: dict[str, tf.Tensor], batch: Any) -> None:
        """The forward pass of a micro-batch in a stage, in the last one with its loss and what that asks back."""
        segment = self._segments[stage]
        known = self._known.setdefault(number, {key: inputs[name] for key, name in self._names.items()})
        with tf.device(self._devices[stage]):
            taken = self._in_turn(stage, [known[key] for key in segment.takes])
            with tf.GradientTape() as tape:
                tape.watch([one for one in taken if one.dtype.is_floating])
                given = recomputed(segment, taken) if self._rematerialise else segment(taken, training=True)
            known |= dict(zip(segment.gives, given, strict=True))
            self._tapes[stage, number] = tape, taken, given
            if stage == len(self._segments) - 1:
                self._loss(number, known, batch)
            self._ended(stage, list(given))

    def _loss(self, number: int, known: dict[int, tf.Tensor], batch: Any) -> None:
        outputs = [tf.identity(known[key]) for key in self._outputs]
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss, totals = self._loss_of(tf.nest.pack_sequence_as(self._structure, outputs), batch)
        found = tape.gradient(loss, outputs + self._variables)
        self._gradients[number] = {}
        for key, gradient in zip(self._outputs, found, strict=False):
            self._add_to(self._gradients[number], key, gradient)
        for variable, gradient in zip(self._variables, found[len(outputs) :], strict=True):
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
        place = self._places[id(variable)]
        gradient = tf.convert_to_tensor(gradient)
        self.sums[place] = gradient if self.sums[place] is None else self.sums[place] + gradient

    def backward(self, stage: int, number: int) -> None:
        """The backward pass of a micro-batch in a stage."""
        segment, (tape, taken, given) = self._segments[stage], self._tapes.pop((stage, number))
        gradients = self._gradients[number]
        own = [one for one in segment.network.trainable_variables if id(one) in self._places]
        with tf.device(self._devices[stage]):
            upstream = [
                gradients[key] if key in gradients else tf.zeros_like(output)
                for key, output in zip(segment.gives, given, strict=True)
            ]
            upstream = self._in_turn(stage, upstream)
            found = tape.gradient(given, taken + own, output_gradients=upstream)
            for key, gradient in zip(segment.takes, found, strict=False):
                self._add_to(gradients, key, gradient)
            for variable, gradient in zip(own, found[len(taken) :], strict=True):
                self._add(variable, gradient)
            self._ended(stage, [tf.convert_to_tensor(one) for one in found if one is not None])
