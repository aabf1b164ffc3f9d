"""A training in stages on the devices of this machine: what is decided before it starts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras

from modules import progress
from modules.cluster.members import wait_for
from modules.errors import UserError
from modules.large_models.partition import Partition, balance, measure, partition_at
from modules.large_models.pipeline import Pipeline
from modules.strategies import STAGES, local_devices, tf_config

# GPipe, section 2: with four times as many micro-batches as stages the bubble is negligible.
MICRO_BATCHES_PER_STAGE = 4
# The device of what belongs to no stage, in a cluster of stages.
CHIEF = "/job:chief/replica:0/task:0/device:CPU:0"
SECONDS_TO_COME_UP = 120.0  # for the processes of stages; they import TensorFlow


@dataclass(frozen=True)
class Parallelism:
    """The settings; as `pipelines.settings.Parallelism` documents them."""

    stages: int = 1
    micro_batches: int | None = None
    schedule: str = "gpipe"
    balance: str | list[int] = "time"
    memory_budget_mb: float | None = None
    rematerialise: bool = False
    processes: bool = False


def micro_batches_of(settings: Parallelism, batch_size: int, examples: int) -> int:
    """Returns the number of micro-batches: as set, or the least from four times the stages that divides the batch.

    Raises:
      UserError: they do not divide the batch, or the last batch of an epoch has too few examples for them.
    """
    wanted = MICRO_BATCHES_PER_STAGE * settings.stages
    dividing = [number for number in range(1, batch_size + 1) if batch_size % number == 0]
    found = settings.micro_batches or next((number for number in dividing if number >= wanted), batch_size)
    if batch_size % found:
        near = ", ".join(map(str, dividing))
        raise UserError(
            f"parallelism.micro_batches: {found} do not divide the batch of {batch_size} examples; these do: {near}"
        )
    rest = examples % batch_size
    if 0 < rest < found:
        raise UserError(
            f"parallelism.micro_batches: the last batch of {examples} examples has {rest}, which make no {found} "
            "micro-batches; choose fewer, or another batch_size"
        )
    return found


def stage_devices(settings: Parallelism) -> list[str]:
    """Returns the devices of the stages: local ones, or those of the cluster's stages, which are connected to.

    Raises:
      UserError: there are fewer devices than stages.
      MachineError: a process of a stage does not come up.
    """
    if not settings.processes:
        return local_devices(settings.stages)
    cluster = tf_config()
    there = len(cluster["cluster"].get(STAGES, []))
    if there != settings.stages:
        raise UserError(f"TF_CONFIG: parallelism.stages is {settings.stages}, but the cluster has {there} of {STAGES}")
    wait_for(cluster, STAGES, SECONDS_TO_COME_UP)
    task = cluster["task"]
    tf.config.experimental_connect_to_cluster(
        tf.train.ClusterSpec(cluster["cluster"]), job_name=task["type"], task_index=task["index"]
    )
    devices = tf.config.list_logical_devices()
    found = []
    for stage in range(settings.stages):
        prefix = f"/job:{STAGES}/replica:0/task:{stage}/"
        own = [device for device in devices if device.name.startswith(prefix)]
        gpus = [device for device in own if device.device_type == "GPU"]
        found.append((gpus or [device for device in own if device.device_type == "CPU"])[0].name)
    return found


@dataclass(frozen=True)
class Stages:
    """The stages of a training."""

    partition: Partition
    devices: list[str]
    micro_batches: int
    settings: Parallelism
    device_of_variable: list[str | None]  # in the order in which the network's builder makes them

    def pipeline(self, network: keras.Model, who: str) -> Pipeline:
        """Returns the network in its stages."""
        settings = self.settings
        return Pipeline(
            network,
            self.partition.places,
            self.devices,
            self.micro_batches,
            settings.schedule,
            settings.rematerialise,
            who,
        )

    @contextmanager
    def variables_on_stages(self) -> Iterator[None]:
        """Places the variables that the builder makes in here; to be entered before a strategy's scope."""
        devices = iter(self.device_of_variable)

        def placed(next_creator, **options):
            with tf.device(next(devices, None)):
                return next_creator(**options)

        with tf.variable_creator_scope(placed):
            yield


def plan_stages(
    build: Callable[[], keras.Model],
    settings: Parallelism,
    micro_batches: int,
    batch_size: int,
    devices: list[str],
    who: str,
) -> Stages:
    """Measures the network that `build` makes and returns its stages.

    Raises:
      UserError: it cannot be cut into so many stages, or they do not fit the budget; `who` names it.
    """
    made: list[tf.Variable] = []

    def noted(next_creator, **options):
        made.append(next_creator(**options))
        return made[-1]

    with tf.variable_creator_scope(noted):
        network = build()
    costs = measure(network, batch_size // micro_batches)
    kept = micro_batches if settings.schedule == "gpipe" else min(micro_batches, settings.stages)
    if isinstance(settings.balance, list):
        places = _places_of(settings, [cost.name for cost in costs])
        partition = partition_at(costs, places, kept)
    else:
        budget = None if settings.memory_budget_mb is None else int(settings.memory_budget_mb * 1e6)
        partition = balance(costs, settings.stages, settings.balance, kept, budget)
    pipeline = Stages(partition, devices, micro_batches, settings, []).pipeline(network, who)
    device_of = {
        id(variable): device
        for device, variables in zip(devices, pipeline.variables_of_stages, strict=True)
        for variable in variables
    }
    bounds = [0, *partition.places, len(costs)]
    parts = ", ".join(
        f"{end - begin} layers {seconds * 1000:.1f} ms {size / 1e6:.1f} MB"
        for begin, end, seconds, size in zip(bounds, bounds[1:], partition.seconds, partition.bytes, strict=False)
    )
    progress.note(
        f"{who}: {settings.stages} stages ({parts}), {micro_batches} micro-batches, {settings.schedule}: bubble "
        f"{partition.bubble(micro_batches):.0%}, at best {partition.speed_up(micro_batches):.2f} times as fast"
    )
    return Stages(partition, devices, micro_batches, settings, [device_of.get(id(variable)) for variable in made])


def _places_of(settings: Parallelism, names: list[str]) -> list[int]:
    counts = settings.balance
    if len(counts) != settings.stages or sum(counts) != len(names) or min(counts) < 1:
        raise UserError(
            f"parallelism.balance: {counts} are not {settings.stages} numbers of layers, at least 1 each, that make up "
            f"the {len(names)} there are: {', '.join(names)}"
        )
    return [sum(counts[:number]) for number in range(1, len(counts))]
