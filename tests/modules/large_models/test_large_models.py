"""Accumulation and rematerialisation give the updates of the plain training."""

import subprocess
import sys

import numpy as np
import psutil
import pytest
import tensorflow as tf
import tf_keras as keras
from deep_network import BATCH, DISTILLATION, EXAMPLES, assert_same, data, deep, soak, strategy_of, train
from tensorflow.python.eager import context  # nothing public shows the graph that TensorFlow runs

from stillhouse.modules.cluster.strategies import local_devices
from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.fitting import examples_passing, prepared
from stillhouse.modules.large_models.ledger import (
    activations,
    kept_bytes,
    kept_tensors,
    ledgers_of_stages,
    whole_ledger,
)
from stillhouse.modules.large_models.rematerialisation import Rematerialised, estimate, plan
from stillhouse.modules.large_models.segments import cut, cuts_after, units_of
from stillhouse.modules.large_models.swap import Swapped, estimate_swap
from stillhouse.modules.peak_memory import forget_peak, peak_mb
from stillhouse.modules.settings import Memory


@pytest.mark.parametrize(
    ("replicas", "micro_batches", "distillation"),
    [soak(1, 2, None), soak(1, 3, DISTILLATION), (2, 2, DISTILLATION), soak(2, 3, None)],
)
def test_accumulated_updates_are_those_of_the_whole_batch(replicas, distillation, micro_batches):
    expected = train(strategy_of(1), deep, distillation=distillation)
    found = train(strategy_of(replicas), deep, distillation=distillation, micro_batches=micro_batches)
    assert_same(found, expected)


def test_an_accumulated_update_is_one_step_of_the_optimiser():
    found = train(strategy_of(1), deep, micro_batches=4)
    assert len(found[1]["loss"]) == 2


def test_batch_normalisation_takes_its_statistics_from_each_micro_batch():
    """Written out in NumPy: moving averages after one batch that passes in two parts."""
    weights, _ = train(strategy_of(1), lambda: deep(norm=True), epochs=1, rate=0.0, micro_batches=2)
    network = deep(norm=True)
    until_norm = keras.Model(network.inputs, network.get_layer("norm").input)
    x, _ = data()
    mean, momentum = np.zeros(6), network.get_layer("norm").momentum
    for begin in range(0, EXAMPLES, BATCH):
        batch = x[begin : begin + BATCH]
        half = -(-len(batch) // 2)
        for part in (batch[:half], batch[half:]):
            mean = momentum * mean + (1 - momentum) * until_norm(part).numpy().mean(axis=0)
    names = [weight.name for weight in network.weights]
    np.testing.assert_allclose(weights[names.index("norm/moving_mean:0")], mean, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("replicas", "cuts"), [soak(1, "auto"), (1, ["shared"]), soak(2, ["first", "skip"])])
def test_rematerialised_updates_are_the_plain_ones_with_dropout_and_moving_averages(replicas, cuts):
    def build():
        return deep(dropout=0.4, norm=True)

    expected = train(strategy_of(replicas), build)
    assert_same(train(strategy_of(replicas), build, rematerialise=cuts), expected)


@pytest.mark.soak
def test_both_together_are_the_accumulated_ones():
    def build():
        return deep(dropout=0.4, norm=True)

    expected = train(strategy_of(1), build, micro_batches=3, distillation=DISTILLATION)
    found = train(strategy_of(1), build, micro_batches=3, rematerialise="auto", distillation=DISTILLATION)
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("swap", "micro_batches", "distillation"),
    [soak("auto", 1, DISTILLATION), soak(["first", "skip"], 1, None), ("auto", 3, None)],
)
def test_swapped_updates_are_the_plain_ones_with_dropout_and_moving_averages(swap, micro_batches, distillation):
    """A logical CPU device stands for a GPU."""

    def build():
        return deep(dropout=0.4, norm=True)

    device = tf.distribute.OneDeviceStrategy(local_devices(2)[1])
    expected = train(device, build, micro_batches=micro_batches, distillation=distillation)
    assert_same(train(device, build, swap=swap, micro_batches=micro_batches, distillation=distillation), expected)


@pytest.mark.soak
def test_swapped_updates_are_the_plain_ones_on_two_devices():
    devices = tf.distribute.MirroredStrategy(
        local_devices(3)[1:], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    assert_same(train(devices, deep, swap=["shared", "late"]), train(devices, deep))


def test_activations_are_on_the_host_until_the_block_behind_begins_its_backward_pass():
    """In the graph that TensorFlow runs, after it has optimised it."""
    network = chain(4)
    swapped = Swapped(network, [1, 2, 3], "Teacher-1")
    host, device = (name[-5:] for name in local_devices(2)[:2])

    @tf.function(autograph=False)
    def step(x):
        with tf.device(device), tf.GradientTape() as tape:
            loss = tf.reduce_sum(swapped({"features": tf.tanh(x)}, training=True) ** 2)
        with tf.device(device):
            return tape.gradient(loss, network.trainable_variables)

    context.context().enable_run_metadata()
    try:
        step(tf.ones([3, 8]))
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_run_metadata()
    nodes = [node for found in graphs for graph in found.partition_graphs for node in graph.node]
    waiting = [node for node in nodes if node.op == "Snapshot"]
    assert len(waiting) == 3  # the input of each dense layer but the last
    assert all(node.device.endswith(host) for node in waiting)
    by_name = {node.name: node for node in nodes}
    for node in waiting:
        come, begin = by_name[node.input[0]], [one for one in node.input if one.startswith("^")]
        assert come.op == "_Recv"
        assert come.attr["send_device"].s.decode().endswith(device)
        assert begin
        back = [one for one in nodes if one.op == "_Send" and one.input[0] == node.name]
        assert [one.attr["recv_device"].s.decode()[-5:] for one in back] == [device]


def test_what_trains_on_the_host_is_not_swapped():
    with (
        strategy_of(1).scope(),
        pytest.raises(UserError, match=r"Teacher-1: memory.swap: needs a GPU; found the CPU, .* the host's"),
    ):
        prepared(deep(), Memory(swap="auto"), 8, "Teacher-1")
    with strategy_of(2).scope(), pytest.raises(UserError, match="memory.swap: needs a GPU; found the CPU"):
        prepared(deep(), Memory(swap="auto"), 8, "Teacher-1")


def test_two_neighbouring_blocks_are_on_the_device_at_a_time():
    network = chain(6)
    found = estimate_swap(network, cuts_after(network, ["dense_0", "dense_1", "dense_3"], "Teacher-1"))
    assert (found.peak, found.whole) == ((2 + 2) * 32, 6 * 32)


def test_segments_one_after_the_other_are_the_network():
    network = deep(norm=True)
    x, _ = data()
    for cut_indices in ([1], [2, 4], list(range(1, len(units_of(network))))):
        known = {id(network.inputs[0]): tf.constant(x)}
        for segment in cut(network, cut_indices):
            taken = [known[key] for key in segment.takes]
            known |= dict(zip(segment.gives, tf.nest.flatten(segment.network(taken)), strict=True))
        np.testing.assert_allclose(known[id(network.outputs[0])], network(x), rtol=1e-6)


def chain(layers, width=8):
    keras.utils.set_random_seed(1)
    features = hidden = keras.Input([width], name="features")
    for number in range(layers):
        hidden = keras.layers.Dense(width, name=f"dense_{number}")(hidden)
    return keras.Model(features, hidden)


@pytest.mark.parametrize("layers", [16, 36, 100])
def test_equal_layers_are_cut_into_about_the_root_of_their_number(layers):
    found = plan(chain(layers))
    root, of_layer = layers**0.5, 8 * 4
    assert found.whole == layers * of_layer
    assert found.peak <= 2 * root * of_layer  # Chen et al.: √n between segments, and √n in one
    assert abs(len(found.cut_indices) + 1 - root) <= root / 4 + 1


def test_the_estimate_of_a_plan_is_what_stays_and_the_largest_segment():
    network = chain(6)
    found = estimate(network, cuts_after(network, ["dense_1", "dense_3"], "Teacher-1"))
    assert (found.cut_indices, found.peak) == ([2, 4], (2 + 2) * 32)


def test_no_cut_is_made_where_much_crosses():
    features = hidden = keras.Input([8], name="features")
    wide = [keras.layers.Dense(64)(features) for _ in range(3)]
    hidden = keras.layers.Dense(8, name="narrow")(keras.layers.Concatenate()(wide))
    network = keras.Model(features, keras.layers.Dense(8, name="last")(keras.layers.Dense(8)(hidden)))
    place = cuts_after(network, ["narrow"], "x")[0]
    assert plan(network).cut_indices[0] == place


def test_a_budget_gets_the_fewest_segments_that_meet_it_or_a_refusal_with_the_least_that_would():
    network, of_layer = chain(64), 8 * 4
    generous, tight = plan(network, 40 * of_layer), plan(network, 17 * of_layer)
    assert generous.peak <= 40 * of_layer
    assert len(generous.cut_indices) < len(tight.cut_indices)
    with pytest.raises(UserError, match=r"found 320 bytes per example; expected \d+ or more"):
        plan(network, 10 * of_layer)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["nowhere"], "found 'nowhere' to cut after; expected one of: first, shared"),
        (["logits"], "found 'logits' to cut after; expected a layer before the last"),
    ],
)
def test_a_layer_that_cannot_be_cut_after_is_named(layers, message):
    with pytest.raises(UserError, match=f"Teacher-1: {message}"):
        cuts_after(deep(), layers, "Teacher-1")


def test_what_cannot_be_cut_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UserError, match="found a subclassed model; expected one of the functional API"):
        prepared(Own(), Memory(rematerialise="auto"), 8, "Teacher-1")
    features = keras.Input([4])
    hidden = keras.layers.Dense(4, activity_regularizer="l2", name="active")(features)
    with pytest.raises(UserError, match="Teacher-1: the layer 'active' has an activity regulariser"):
        prepared(keras.Model(features, keras.layers.Dense(3)(hidden)), Memory(rematerialise="auto"), 8, "Teacher-1")


def test_more_micro_batches_than_examples_are_refused():
    with pytest.raises(UserError, match="memory.micro_batches: found 5; expected at most 4 .examples per replica"):
        examples_passing(8, strategy_of(2), Memory(micro_batches=5))


def test_the_ledger_has_what_a_backward_pass_needs():
    """Of dense layers with tanh: each layer's input, and the last one's output, float32 [5, 8] each."""
    keras.utils.set_random_seed(1)
    features = hidden = keras.Input([8], name="features")
    for number in range(4):
        hidden = keras.layers.Dense(8, activation="tanh", name=f"dense_{number}")(hidden)
    network = keras.Model(features, hidden)
    tensor, layer = 5 * 8 * 4, (8 * 8 + 8) * 4
    assert kept_bytes(network, 5) == 5 * tensor
    optimizer = keras.optimizers.Adam()
    optimizer.build(network.trainable_variables)
    found = whole_ledger(network, optimizer, network, 5)
    assert (found["parameters"], found["gradients"], found["activations"]) == (4 * layer, 4 * layer, 5 * tensor)
    assert found["optimizer_state"] - 2 * 4 * layer in range(4, 32)  # and the number of updates, the learning rate
    again = Rematerialised(network, [1, 2, 3], "Teacher-1")
    assert activations(network, again, 5) == 3 * tensor + 2 * tensor  # between segments; one layer's two
    assert activations(network, Swapped(network, [1, 2, 3], "Teacher-1"), 5) == 2 * 2 * tensor
    stages = ledgers_of_stages(network, optimizer, [1], [3, 1], False, 5)
    assert [one["parameters"] for one in stages] == [layer, 3 * layer]
    assert [one["activations"] for one in stages] == [3 * 2 * tensor, 4 * tensor]
    stages = ledgers_of_stages(network, optimizer, [1], [3, 1], True, 5)
    assert [one["activations"] for one in stages] == [3 * tensor + 2 * tensor, tensor + 4 * tensor]


def test_dropout_keeps_its_mask_and_views_are_counted_once():
    features = keras.Input([8], name="features")
    hidden = keras.layers.Dropout(0.5)(keras.layers.Reshape([2, 4])(features))
    network = keras.Model(features, keras.layers.Dense(4)(hidden))
    kept = {reference.deref().dtype: size for reference, size in kept_tensors(network, 5).items()}
    assert kept[tf.bool] == 5 * 8


def test_the_peak_of_a_process_is_what_it_once_had():
    script = "import sys; held = bytearray(300_000_000); del held; print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 300 < peak_mb(process.pid) < 400
        assert psutil.Process(process.pid).memory_info().rss < 100e6
        process.stdin.close()
    assert peak_mb(process.pid) is None


def test_a_peak_can_be_forgotten():
    held = bytearray(300_000_000)
    del held
    before = peak_mb()
    forget_peak()
    assert peak_mb() < before - 200
