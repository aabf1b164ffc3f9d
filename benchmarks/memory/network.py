"""The network of these benchmarks, trained on a device that is a process of its own."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

WIDTH = 128
# Freed memory goes back at once, so that what a process has is what lives.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "2",
    "TF_NUM_INTEROP_THREADS": "3",
}


@dataclass(frozen=True)
class Way:
    """How the network is trained."""

    micro_batches: int = 1
    cuts: str | list[str] = "none"
    swap: bool = False  # what is cut is swapped, not computed again
    stages: int = 0  # of a pipeline, with rematerialisation; 0: in one piece


def chain(blocks: int):
    """Returns a network of equal blocks, x + Dense(width)(Dense(4 width)(x)), as a transformer has them."""
    import tf_keras as keras

    keras.utils.set_random_seed(1)
    features = hidden = keras.Input([WIDTH], name="features")
    for number in range(1, blocks + 1):
        inner = keras.layers.Dense(4 * WIDTH, activation="tanh", name=f"wide_{number}")(hidden)
        hidden = keras.layers.Add(name=f"block_{number}")([hidden, keras.layers.Dense(WIDTH)(inner)])
    return keras.Model(features, keras.layers.Dense(10, name="logits")(hidden))


def cut_indices_of(way: Way, network) -> list[int]:
    """Returns the units after which the network is cut."""
    from stillhouse.modules.large_models.rematerialisation import plan
    from stillhouse.modules.large_models.segments import cuts_after

    if way.cuts == "none":
        return []
    return plan(network).cut_indices if way.cuts == "auto" else cuts_after(network, way.cuts, "benchmark")


def stepper(blocks: int, way: Way, devices: list[str]):
    """Builds the network and its training by Adam on the devices.

    Returns:
      A function that does an update on so many examples, from x float32 [batch, WIDTH] and y int64 [batch].
    """
    import tensorflow as tf
    import tf_keras as keras

    from stillhouse.modules.large_models.parallelism import CHIEF, Stages
    from stillhouse.modules.large_models.partition import Partition
    from stillhouse.modules.large_models.pipeline import Pipeline
    from stillhouse.modules.large_models.rematerialisation import Rematerialised
    from stillhouse.modules.large_models.segments import cuts_after
    from stillhouse.modules.large_models.swap import Swapped
    from stillhouse.modules.settings import Parallelism
    from stillhouse.modules.training.learner import Learner

    more: dict[str, Any] = {"micro_batches": way.micro_batches}
    strategy = tf.distribute.OneDeviceStrategy(devices[0])
    if way.stages:
        # Blocks are equal, so there is nothing to measure.
        plain = chain(blocks)
        ends = [f"block_{blocks * stage // way.stages}" for stage in range(1, way.stages)]
        cut_indices = cuts_after(plain, ends, "benchmark")
        stage_of = []
        for number, layer in enumerate(plain.layers[1:], start=1):
            stage_of += [bisect_left(cut_indices, number)] * len(layer.weights)
        stages = Stages(Partition(cut_indices, [], []), [devices], way.micro_batches, Parallelism(), stage_of)
        with stages.variables_on_stages(), strategy.scope():
            network = chain(blocks)
        more = {
            "make_pipeline": lambda model: Pipeline(
                model, cut_indices, [devices], way.micro_batches, "gpipe", rematerialise=True
            )
        }
    else:
        with strategy.scope():
            network = chain(blocks)
        cut_indices = cut_indices_of(way, network)
        if cut_indices and way.swap:
            more["prepare_forward"] = lambda model: Swapped(
                model, cut_indices, "benchmark", host=CHIEF.format(replica=0)
            )
        elif cut_indices:
            more["prepare_forward"] = lambda model: Rematerialised(model, cut_indices, "benchmark")
    with strategy.scope():
        learner = Learner(network, **more)
        learner.compile(optimizer=keras.optimizers.Adam(1e-4))
        learner.optimizer.build(network.trainable_variables)

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, WIDTH], tf.float32), tf.TensorSpec([None], tf.int64)],
    )
    def step(x, y):
        return strategy.run(learner.update, ((({"features": x}, y, {}), tf.zeros([])),))["loss"]

    def update(x, y) -> float:
        with tf.device(devices[0]):
            return float(step(tf.constant(x), tf.constant(y)))

    return update


def batch_of(examples: int):
    """Returns x float32 [examples, WIDTH] and y int64 [examples]."""
    import numpy as np

    random = np.random.RandomState(0)
    return random.normal(size=(examples, WIDTH)).astype(np.float32), random.randint(0, 10, examples).astype(np.int64)
