"""A step in stages as it really ran: what each stage did when, and its picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from stillhouse.modules.large_models.pipeline import BACKWARD, CLOCK, FORWARD, LossOf, Pass, Pipeline

COLOURS = {FORWARD: "#4c78a8", BACKWARD: "#f58518"}
MOST_NUMBERED = 200  # passes, above which there is no room for the numbers of their micro-batches


@dataclass(frozen=True)
class Timed:
    """A pass, and when it was, in seconds by the clock of its process."""

    of: Pass
    began: float
    ended: float


def clock(
    pipeline: Pipeline,
    inputs: dict[str, tf.Tensor],
    batch: Any,
    loss_of: LossOf,
    variables: Sequence[tf.Variable],
    warm_up: int = 1,
) -> list[Timed]:
    """Runs steps without an update and returns what the last one's passes took; of the first replica.

    Arguments are as `Pipeline.gradients` has them. On several hosts the times compare as well as their clocks agree.
    """
    given = (inputs, batch)

    def step(*tensors):
        own_inputs, own_batch = tf.nest.pack_sequence_as(given, tensors)
        gradients, totals = pipeline.gradients(own_inputs, own_batch, loss_of, variables, clocked=True)
        return totals[CLOCK], [tf.reduce_sum(one) for one in gradients if one is not None]

    # A tf.function would let the clocks of all stages be read in the order of the program.
    wrapped = tf.compat.v1.wrap_function(step, [tf.TensorSpec.from_tensor(one) for one in tf.nest.flatten(given)])
    for _ in range(warm_up + 1):
        times = wrapped(*tf.nest.flatten(given))[0].numpy()
    return [Timed(of, float(began), float(ended)) for of, (began, ended) in zip(pipeline.order, times, strict=True)]


def busy(passes: Sequence[Timed]) -> float:
    """Returns the share of the step in which a stage had something to do, the mean over the stages."""
    stages = 1 + max(one.of.stage for one in passes)
    took = max(one.ended for one in passes) - min(one.began for one in passes)
    return sum(one.ended - one.began for one in passes) / (stages * took)


def drawn(passes: Sequence[Timed], title: str) -> bytes:
    """Returns the picture, SVG: a row for each stage, a bar for each pass with the number of its micro-batch."""
    import matplotlib  # heavy
    from matplotlib.figure import Figure

    first = min(one.began for one in passes)
    stages = 1 + max(one.of.stage for one in passes)
    figure = Figure(figsize=(10, 1.2 + 0.6 * stages), layout="constrained")
    axes = figure.add_subplot()
    for kind, colour in COLOURS.items():
        own = [one for one in passes if one.of.kind == kind]
        for stage in range(stages):
            bars = [
                ((one.began - first) * 1000, (one.ended - one.began) * 1000) for one in own if one.of.stage == stage
            ]
            label = None if stage else kind
            axes.broken_barh(bars, (stage - 0.4, 0.8), color=colour, edgecolor="white", label=label)
        for one in own if len(passes) <= MOST_NUMBERED else []:
            middle = ((one.began + one.ended) / 2 - first) * 1000
            centred = {"ha": "center", "va": "center", "color": "white", "zorder": 3}
            axes.text(middle, one.of.stage, str(one.of.micro_batch + 1), **centred)
    axes.set_yticks(range(stages), [f"stage {stage}" for stage in range(stages)])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "stillhouse"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
