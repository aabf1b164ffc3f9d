"""Stages on devices: schedules, partitions, and updates that are those of the network in one piece."""

from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from deep_network import BATCH, DISTILLATION, EXAMPLES, assert_same, data, deep, soak, strategy_of, train
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.modules.cluster.strategies import local_devices
from stillhouse.modules.errors import UserError
from stillhouse.modules.large_models.parallelism import (
    micro_batches_of,
    plan_stages,
    stage_devices,
    strategy_of_stages,
)
from stillhouse.modules.large_models.partition import Cost, Partition, balance, measure, partition_at
from stillhouse.modules.large_models.pipeline import (
    BACKWARD,
    FORWARD,
    Pass,
    Pipeline,
    global_order,
    max_in_flight,
    order_of,
)
from stillhouse.modules.large_models.segments import cuts_after, units_of
from stillhouse.modules.large_models.timeline import Timed, busy, clock, render_timeline
from stillhouse.modules.settings import Parallelism

DEVICES = ["CPU:0", "CPU:1"]


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 1), (2, 4), (4, 4), (4, 8), (3, 2)])
def test_every_micro_batch_passes_each_stage_once_each_way_when_it_can(schedule, stages, micro_batches):
    order = global_order(schedule, stages, micro_batches)
    assert len(order) == len(set(order)) == 2 * stages * micro_batches
    place = {one: number for number, one in enumerate(order)}
    for one in order:
        if one.kind == FORWARD and one.stage:
            assert place[Pass(FORWARD, one.stage - 1, one.micro_batch)] < place[one]
        if one.kind == BACKWARD:
            before = Pass(FORWARD, one.stage, one.micro_batch)
            assert place[before] < place[one]
            if one.stage < stages - 1:
                assert place[Pass(BACKWARD, one.stage + 1, one.micro_batch)] < place[one]


def test_1f1b_keeps_the_activations_of_fewer_micro_batches():
    assert [max_in_flight("gpipe", stage, 4, 8) for stage in range(4)] == [8, 8, 8, 8]
    assert [max_in_flight("1f1b", stage, 4, 8) for stage in range(4)] == [4, 3, 2, 1]


def steps_of(order, stages):
    """Returns how many steps the passes take if each takes one."""
    ends, free = {}, [0] * stages
    for one in order:
        needs = {
            FORWARD: [Pass(FORWARD, one.stage - 1, one.micro_batch)],
            BACKWARD: [Pass(BACKWARD, one.stage + 1, one.micro_batch), Pass(FORWARD, one.stage, one.micro_batch)],
        }[one.kind]
        begin = max([free[one.stage], *(ends.get(need, 0) for need in needs)])
        ends[one] = free[one.stage] = begin + 1
    return max(free)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 1), (2, 4), (4, 16)])
def test_a_schedule_takes_as_long_as_gpipe_says(schedule, stages, micro_batches):
    took = steps_of(global_order(schedule, stages, micro_batches), stages)
    assert took == 2 * (micro_batches + stages - 1)
    even = Partition([1] * (stages - 1), [1.0] * stages, [1] * stages)
    assert even.speed_up(micro_batches) == pytest.approx(2 * stages * micro_batches / took)
    assert even.bubble(micro_batches) == pytest.approx(1 - 2 * micro_batches / took)


def costs_of(seconds, parameters=None):
    parameters = parameters or [0] * len(seconds)
    return [Cost(f"layer_{n}", s, p, 0) for n, (s, p) in enumerate(zip(seconds, parameters, strict=True))]


def slowest(values, cut_indices):
    bounds = [0, *cut_indices, len(values)]
    return max(sum(values[begin:end]) for begin, end in pairwise(bounds))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=3, max_size=9), st.integers(1, 3), st.data()
)
def test_the_partition_is_the_best_of_all(layers, stages, draw):
    seconds, parameters = [one for one, _ in layers], [of for _, of in layers]
    every = [list(cut_indices) for cut_indices in combinations(range(1, len(layers)), stages - 1)]
    found = balance(costs_of(seconds, parameters), stages, copies=1)
    assert max(found.seconds) == slowest(seconds, found.cut_indices) == min(slowest(seconds, one) for one in every)
    by_memory = balance(costs_of(seconds, parameters), stages, by="memory", copies=1)
    least = min(slowest(parameters, one) for one in every)
    assert max(by_memory.bytes) == least
    budget = draw.draw(st.integers(least, sum(parameters)))
    found = balance(costs_of(seconds, parameters), stages, budget=budget, copies=1)
    assert max(found.bytes) <= budget
    fitting = [one for one in every if slowest(parameters, one) <= budget]
    assert max(found.seconds) == min(slowest(seconds, one) for one in fitting)


def test_a_budget_that_no_partition_meets_is_refused_with_the_smallest_that_would_do():
    costs = costs_of([1, 1, 1], [4_000_000, 3_000_000, 2_000_000])
    with pytest.raises(UserError, match="memory_budget_mb: found 4.0; expected at least 5.0 for 2 stages"):
        balance(costs, 2, budget=4_000_000, copies=1)


def test_a_measured_network_has_its_parameters_and_activations():
    network = deep()
    costs = {cost.name: cost for cost in measure(network, 32)}
    assert costs["first"].parameter_bytes == (4 * 6 + 6) * 4
    assert costs["first"].activation_bytes == 32 * 6 * 4
    assert all(cost.seconds > 0 for cost in costs.values())
    whole = measure(network, 32)
    assert sum(cost.parameter_bytes for cost in whole) == network.count_params() * 4  # a shared layer counts once


def staged(cut_indices, micro_batches, schedule="gpipe", rematerialise=False, devices=DEVICES):
    return lambda network: Pipeline(network, cut_indices, [devices], micro_batches, schedule, rematerialise)


@pytest.mark.parametrize(
    ("cut_indices", "micro_batches", "schedule", "rematerialise", "distillation"),
    [
        ([3], 1, "gpipe", False, None),
        soak([3], 4, "gpipe", False, DISTILLATION),
        soak([2], 2, "1f1b", False, None),
        soak([3], 4, "1f1b", True, DISTILLATION),
        soak([2, 5], 2, "gpipe", True, None),
        soak([1, 4], 4, "1f1b", False, DISTILLATION),
    ],
)
def test_the_updates_are_those_of_the_network_in_one_piece(
    cut_indices, micro_batches, schedule, rematerialise, distillation
):
    """A skip connection, a layer that two stages share, a regulariser, a last batch that is smaller."""
    devices = [DEVICES[stage % 2] for stage in range(len(cut_indices) + 1)]
    expected = train(strategy_of(1), deep, distillation=distillation)
    pipeline = staged(cut_indices, micro_batches, schedule, rematerialise, devices)
    assert_same(train(strategy_of(1), deep, distillation=distillation, pipeline=pipeline), expected)


@pytest.mark.soak
def test_dropout_and_batch_normalisation_are_those_of_accumulation():
    def build():
        return deep(dropout=0.4, norm=True)

    expected = train(strategy_of(1), build, pipeline=staged([4], 2))
    assert_same(train(strategy_of(1), build, pipeline=staged([4], 2, rematerialise=True)), expected)
    without = train(strategy_of(1), lambda: deep(norm=True), micro_batches=2)
    assert_same(train(strategy_of(1), lambda: deep(norm=True), pipeline=staged([4], 2)), without)


def test_inputs_and_outputs_may_belong_to_any_stage():
    def build():
        keras.utils.set_random_seed(3)
        features, scale = keras.Input([4], name="features"), keras.Input([1], name="scale")
        first = keras.layers.Dense(6, activation="tanh", name="first")(features)
        second = keras.layers.Dense(6, activation="tanh", name="second")(first)
        late = keras.layers.Multiply(name="late")([second, scale])
        return keras.Model([features, scale], keras.layers.Dense(3, name="logits")(late))

    x, _ = data()
    batch = {"features": tf.constant(x), "scale": tf.constant(x[:, :1])}
    found = []
    for pipeline in (None, staged([1], 2), staged([3], 2)):
        network = build()
        forward = keras.Model(network.inputs, [network.output, network.get_layer("first").output])

        def loss_of(outputs, part):
            loss = tf.reduce_sum(outputs[0] ** 2) + tf.reduce_sum(outputs[1])
            return loss, {"loss": loss, "examples": tf.cast(tf.shape(part)[0], tf.float32)}

        variables = network.trainable_variables
        if pipeline is None:
            with tf.GradientTape() as tape:
                loss, totals = loss_of(forward(batch, training=True), x)
            gradients = tape.gradient(loss, variables)
        else:
            gradients, totals = pipeline(forward).gradients(batch, tf.constant(x), loss_of, variables)
        found.append((gradients, totals))
    for gradients, totals in found[1:]:
        for ours, expected in zip(gradients, found[0][0], strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        assert {name: float(total) for name, total in totals.items()} == pytest.approx(
            {name: float(total) for name, total in found[0][1].items()}, rel=1e-5
        )


def test_the_weights_of_a_stage_and_their_optimisers_state_are_made_on_its_device():
    stages = plan_stages(deep, Parallelism(stages=2, balance=[3, 4]), 2, 8, [local_devices(2)], "Teacher-1")
    strategy = strategy_of(1)
    with stages.variables_on_stages(), strategy.scope():
        network = deep()
    of = {weight.name.partition("/")[0]: weight.device[-5:] for weight in network.weights}
    assert of == {"first": "CPU:0", "shared": "CPU:0", "late": "CPU:1", "logits": "CPU:1"}
    optimizer = keras.optimizers.Adam()
    with strategy.scope():
        optimizer.build(network.trainable_variables)
    state = {one.name.split("/")[1]: one.device[-5:] for one in optimizer.variables if "/" in one.name}
    assert state == of


@pytest.mark.parametrize(
    ("schedule", "rematerialise", "distillation"), [soak("gpipe", False, DISTILLATION), ("1f1b", True, None)]
)
def test_replicas_of_stages_give_the_updates_of_the_network_in_one_piece(schedule, rematerialise, distillation):
    """Two replicas of two stages; the last batch has 6 examples."""
    expected = train(strategy_of(1), deep, distillation=distillation)
    settings = Parallelism(
        stages=2, replicas=2, micro_batches=2, balance=[3, 4], schedule=schedule, rematerialise=rematerialise
    )
    assert micro_batches_of(settings, BATCH, EXAMPLES) == 2
    devices = stage_devices(settings)
    stages = plan_stages(deep, settings, 2, BATCH, devices, "Teacher-1")
    made = []

    def build():
        made.append(deep())
        return made[0]

    found = train(
        strategy_of_stages(settings, devices),
        build,
        distillation=distillation,
        pipeline=lambda model: stages.pipeline(model, "Teacher-1"),
        placed=stages.variables_on_stages(),
    )
    assert_same(found, expected)
    for name, stage in (("first", 0), ("shared", 0), ("late", 1), ("logits", 1)):
        kernel = made[0].get_layer(name).kernel
        assert [one.device[-5:] for one in kernel.values] == [of_replica[stage][-5:] for of_replica in devices]
        np.testing.assert_array_equal(*(one.numpy() for one in kernel.values))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stages": 9}, "parallelism.stages: found 9; expected at most 7 .layers."),
        (
            {"stages": 2, "balance": [3, 3]},
            r"found \[3, 3\]; expected 2 numbers of at least 1 with the sum 7 \(layers: first",
        ),
        ({"stages": 2, "balance": [7, 0]}, r"found \[7, 0\]; expected 2 numbers of at least 1"),
        ({"stages": 2, "memory_budget_mb": 1e-4}, r"memory_budget_mb: found 0.0; expected at least \d.* for 2 stages"),
    ],
)
def test_stages_that_cannot_be_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        plan_stages(deep, Parallelism(**given), 2, 8, [DEVICES], "Teacher-1")


def test_the_schedule_is_known():
    with pytest.raises(UserError, match="parallelism.schedule: found 'random'; expected one of: gpipe, 1f1b"):
        order_of("random", 0, 2, 2)


@pytest.mark.parametrize(("batch", "found"), [(64, 8), (60, 10), (7, 7), (24, 8)])
def test_the_number_of_micro_batches_is_chosen_to_divide_the_batch(batch, found):
    assert micro_batches_of(Parallelism(stages=2), batch, batch * 10) == found


def test_micro_batches_that_do_not_divide_are_refused_with_those_that_do():
    with pytest.raises(UserError, match="found 3; expected a divisor of the batch of 8 examples: 1, 2, 4, 8"):
        micro_batches_of(Parallelism(stages=2, micro_batches=3), 8, 80)
    with pytest.raises(
        UserError, match="found 4; expected at most 2, a replica's examples of the last batch .2 of 82 ex"
    ):
        micro_batches_of(Parallelism(stages=2, micro_batches=4), 8, 82)
    with pytest.raises(UserError, match="found 3; expected a divisor of a replica's 8 examples of a batch: 1, 2, 4, 8"):
        micro_batches_of(Parallelism(stages=2, replicas=2, micro_batches=3), 16, 160)
    with pytest.raises(
        UserError, match="found 4; expected at most 2, a replica's examples of the last batch .5 of 165 ex"
    ):
        micro_batches_of(Parallelism(stages=2, replicas=2, micro_batches=4), 16, 165)
    with pytest.raises(UserError, match="parallelism.replicas: found 3; expected a divisor of batch_size 16"):
        micro_batches_of(Parallelism(stages=2, replicas=3), 16, 160)


def test_the_examples_here_have_a_last_batch_that_is_smaller():
    assert EXAMPLES % BATCH
    assert partition_at(costs_of([1.0, 3.0]), [1]).seconds == [1.0, 3.0]
    assert len(units_of(deep())) == 7
    assert cuts_after(deep(), ["first"], "x") == [1]


def test_a_clocked_step_has_the_time_of_every_pass_in_its_order():
    network = deep()
    pipeline = staged([3], 4, "1f1b")(network)
    x, _ = data()

    def loss_of(output, part):
        loss = tf.reduce_sum(output**2)
        return loss, {"loss": loss}

    inputs, variables = {"features": tf.constant(x)}, network.trainable_variables
    passes = clock(pipeline, inputs, tf.constant(x), loss_of, variables)
    assert [timed.stage_pass for timed in passes] == pipeline.order
    began, ended = [one.began for one in passes], [one.ended for one in passes]
    assert 0 < busy(passes) <= 1
    place = {one: number for number, one in enumerate(pipeline.order)}
    for stage in range(2):
        own = [place[one] for one in order_of("1f1b", stage, 2, 4)]
        assert all(began[one] <= ended[one] for one in own)
        assert all(ended[one] <= began[after] for one, after in pairwise(own))
    for number in range(4):
        assert ended[place[Pass(FORWARD, 0, number)]] <= began[place[Pass(FORWARD, 1, number)]]
        # A stage hands its gradient on before it is done with those of its weights.
        assert began[place[Pass(BACKWARD, 1, number)]] <= began[place[Pass(BACKWARD, 0, number)]]


def test_the_share_of_busy_time_and_the_picture_are_of_the_passes():
    """Two stages, one micro-batch: one of them waits at any time."""
    times = {
        (FORWARD, 0): (10.0, 10.1),
        (FORWARD, 1): (10.1, 10.2),
        (BACKWARD, 1): (10.2, 10.4),
        (BACKWARD, 0): (10.4, 10.6),
    }
    passes = [Timed(Pass(kind, stage, 0), *when) for (kind, stage), when in times.items()]
    assert busy(passes) == pytest.approx(0.5)
    picture = ElementTree.fromstring(render_timeline(passes, "Teacher-1: gpipe"))
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
