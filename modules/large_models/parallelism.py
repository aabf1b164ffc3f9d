"""Plans a training job in stages and replicas of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.cluster.members import wait_for
from stillhouse.modules.cluster.spec import STAGES, ClusterSpec
from stillhouse.modules.cluster.strategies import local_devices, prepare_devices
from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.partition import Partition, balance, measure, partition_at
from stillhouse.modules.large_models.pipeline import Pipeline, max_in_flight
from stillhouse.modules.settings import Parallelism

# GPipe, section 2: with four times as many micro-batches as stages the bubble is negligible.
MICRO_BATCHES_PER_STAGE = 4
# The process of what belongs to no stage, in a cluster of stages; a device for each replica.
CHIEF = "/job:chief/replica:0/task:0/device:CPU:{replica}"
SECONDS_TO_COME_UP = 120.0  # for the processes of stages; they import TensorFlow


def micro_batches_of(settings: Parallelism, batch_size: int, examples: int) -> int:
    """Returns the number of a replica's micro-batches: as set, or the least from 4 K on that divides its batch.

    Raises:
      UserError: they do not divide it, or the last batch of an epoch has too few examples for them.
    """
    replicas = settings.replicas
    if batch_size % replicas:
        raise UserError(
            f"parallelism.replicas: found {replicas}; expected a divisor of batch_size {batch_size}; change one of them"
        )
    whole, batch_size = batch_size, batch_size // replicas
    min_count = MICRO_BATCHES_PER_STAGE * settings.stages
    dividing = [number for number in range(1, batch_size + 1) if batch_size % number == 0]
    count = settings.micro_batches or next((number for number in dividing if number >= min_count), batch_size)
    batch_description = (
        f"the batch of {batch_size} examples" if replicas == 1 else f"a replica's {batch_size} examples of a batch"
    )
    if batch_size % count:
        near = ", ".join(map(str, dividing))
        raise UserError(f"parallelism.micro_batches: found {count}; expected a divisor of {batch_description}: {near}")
    remainder = examples % whole
    last_replica_examples = remainder - (replicas - 1) * -(-remainder // replicas)
    if remainder and last_replica_examples < count:
        raise UserError(
            f"parallelism.micro_batches: found {count}; expected at most {max(0, last_replica_examples)}, a "
            f"replica's examples of the last batch ({remainder} of {examples} examples); lower it or change batch_size"
        )
    return count


def stage_devices(settings: Parallelism, cluster: ClusterSpec | None = None) -> list[list[str]]:
    """Returns the devices of the stages of each replica: local ones, or those of the cluster, which is connected to.

    Args:
      settings: stages, replicas, and whether each stage is a process.
      cluster: the processes of the stages, where they have some.

    Raises:
      UserError: there are fewer devices than stages.
      MachineError: a process of a stage does not come up.
    """
    if settings.processes:
        devices = _in_processes(settings, cluster)
    else:
        devices = local_devices(settings.replicas * settings.stages)
    return [devices[begin : begin + settings.stages] for begin in range(0, len(devices), settings.stages)]


def _in_processes(settings: Parallelism, cluster: ClusterSpec | None) -> list[str]:
    if cluster is None:
        raise UserError("parallelism.processes: needs a cluster; found no TF_CONFIG in the environment; set it")
    required_count, listed_count = settings.replicas * settings.stages, len(cluster.addresses.get(STAGES, []))
    if listed_count != required_count:
        raise UserError(
            f"TF_CONFIG: found {listed_count} processes of {STAGES}; expected {required_count} "
            f"({settings.replicas} replicas of {settings.stages} stages)"
        )
    prepare_devices(settings.replicas)
    wait_for(cluster, STAGES, SECONDS_TO_COME_UP)
    tf.config.experimental_connect_to_cluster(
        tf.train.ClusterSpec(cluster.addresses), job_name=cluster.kind, task_index=cluster.index
    )
    devices = tf.config.list_logical_devices()
    names = []
    for stage in range(required_count):
        prefix = f"/job:{STAGES}/replica:0/task:{stage}/"
        own = [device for device in devices if device.name.startswith(prefix)]
        gpus = [device for device in own if device.device_type == "GPU"]
        names.append((gpus or [device for device in own if device.device_type == "CPU"])[0].name)
    return names


def strategy_of_stages(settings: Parallelism, devices: list[list[str]]) -> tf.distribute.Strategy:
    """Returns the strategy of a training job in stages: a replica's stages count as one device.

    Gradients are summed over the replicas of a variable, which are on the devices of the same stage.
    """
    homes = [CHIEF.format(replica=replica) for replica in range(settings.replicas)]
    if not settings.processes:
        homes = [of_replica[0] for of_replica in devices]
    if settings.replicas == 1:
        return tf.distribute.OneDeviceStrategy(homes[0])
    return tf.distribute.MirroredStrategy(homes, cross_device_ops=tf.distribute.ReductionToOneDevice())


@dataclass(frozen=True)
class Stages:
    """The stages of a training job."""

    partition: Partition
    devices: list[list[str]]  # of each replica
    micro_batches: int
    settings: Parallelism
    stage_of_variable: list[int | None]  # in the order in which the network's builder makes them

    @property
    def in_flight(self) -> list[int]:
        """The number of micro-batches whose activations each stage keeps."""
        return [
            max_in_flight(self.settings.schedule, k, self.settings.stages, self.micro_batches)
            for k in range(self.settings.stages)
        ]

    def pipeline(self, network: keras.Model, name: str) -> Pipeline:
        """Returns the network in its stages."""
        settings = self.settings
        return Pipeline(
            network,
            self.partition.cut_indices,
            self.devices,
            self.micro_batches,
            settings.schedule,
            settings.rematerialise,
            name,
        )

    @contextmanager
    def variables_on_stages(self) -> Iterator[None]:
        """Places the variables that the builder makes in here; to be entered before a strategy's scope."""
        left = [iter(self.stage_of_variable) for _ in self.devices]

        def placed(next_creator, **options):
            # A strategy makes a variable for one replica after the other, each in the scope of the replica's device.
            replica = 0
            if len(self.devices) > 1:
                replica = tf.distribute.get_strategy().extended.worker_devices.index(tf.zeros([]).device)
            stage = next(left[replica], None)
            with tf.device(None if stage is None else self.devices[replica][stage]):
                return next_creator(**options)

        with tf.variable_creator_scope(placed):
            yield


def plan_stages(
    build: Callable[[], keras.Model],
    settings: Parallelism,
    micro_batches: int,
    batch_size: int,
    devices: list[list[str]],
    name: str,
) -> Stages:
    """Measures the network that `build` makes and returns its stages.

    Raises:
      UserError: it cannot be cut into so many stages, or they do not fit the budget; the message has the
        network's `name`.
    """
    made: list[tf.Variable] = []

    def noted(next_creator, **options):
        made.append(next_creator(**options))
        return made[-1]

    with tf.variable_creator_scope(noted):
        network = build()
    costs = measure(network, batch_size // settings.replicas // micro_batches)
    in_flight = micro_batches if settings.schedule == "gpipe" else min(micro_batches, settings.stages)
    if isinstance(settings.balance, list):
        cut_indices = _cut_indices_of(settings.balance, settings.stages, [cost.name for cost in costs])
        partition = partition_at(costs, cut_indices, in_flight)
    else:
        budget = None if settings.memory_budget_mb is None else int(settings.memory_budget_mb * 1e6)
        partition = balance(costs, settings.stages, settings.balance, in_flight, budget)
    pipeline = Stages(partition, devices, micro_batches, settings, []).pipeline(network, name)
    stage_of: dict[int, int] = {}
    for stage, variables in enumerate(pipeline.variables_of_stages):
        # By their handles: a layer in mixed precision wraps its variables.
        stage_of |= {id(variable.handle): stage for variable in variables}
    bounds = [0, *partition.cut_indices, len(costs)]
    parts = ", ".join(
        f"{end - begin} layers {seconds * 1000:.1f} ms {size / 1e6:.1f} MB"
        for begin, end, seconds, size in zip(bounds, bounds[1:], partition.seconds, partition.bytes, strict=False)
    )
    replicas = f"{settings.replicas} replicas of " if settings.replicas > 1 else ""
    progress.note(
        f"{name}: {replicas}{settings.stages} stages ({parts}), {micro_batches} micro-batches, {settings.schedule}: "
        f"bubble {partition.bubble(micro_batches):.0%}, maximum speed-up {partition.speed_up(micro_batches):.2f}"
    )
    return Stages(partition, devices, micro_batches, settings, [stage_of.get(id(variable.handle)) for variable in made])


def _cut_indices_of(counts: list[int], stages: int, names: list[str]) -> list[int]:
    if len(counts) != stages or sum(counts) != len(names) or min(counts) < 1:
        raise UserError(
            f"parallelism.balance: found {counts}; expected {stages} numbers of at least 1 with the sum "
            f"{len(names)} (layers: {', '.join(names)})"
        )
    return [sum(counts[:number]) for number in range(1, len(counts))]
