"""Measures a step in stages, pass by pass, and draws its timeline."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from stillhouse.modules.large_models.pipeline import BACKWARD, CLOCK, FORWARD, LossOf, Pass, Pipeline

COLOURS = {FORWARD: "#4c78a8", BACKWARD: "#f58518"}
MAX_NUMBERED = 200  # maximum number of passes with room for the numbers of their micro-batches


@dataclass(frozen=True)
class Timed:
    """A pass with its begin and end in seconds, by the clock of its process."""

    stage_pass: Pass
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
    """Runs steps without updates and returns the last one's passes with their times, for the first replica.

    The arguments are those of `Pipeline.gradients`. On several hosts the times are only as comparable as the clocks.
    """
    arguments = (inputs, batch)

    def step(*tensors):
        own_inputs, own_batch = tf.nest.pack_sequence_as(arguments, tensors)
        gradients, totals = pipeline.gradients(own_inputs, own_batch, loss_of, variables, clocked=True)
        return totals[CLOCK], [tf.reduce_sum(gradient) for gradient in gradients if gradient is not None]

    # A tf.function would read the clocks of all stages in program order.
    flat = tf.nest.flatten(arguments)
    wrapped = tf.compat.v1.wrap_function(step, [tf.TensorSpec.from_tensor(tensor) for tensor in flat])
    for _ in range(warm_up + 1):
        times = wrapped(*flat)[0].numpy()
    return [
        Timed(timed_pass, float(began), float(ended))
        for timed_pass, (began, ended) in zip(pipeline.order, times, strict=True)
    ]


def busy(passes: Sequence[Timed]) -> float:
    """Returns the fraction of the step in which a stage was busy, averaged over the stages."""
    stages = 1 + max(timed.stage_pass.stage for timed in passes)
    took = max(timed.ended for timed in passes) - min(timed.began for timed in passes)
    return sum(timed.ended - timed.began for timed in passes) / (stages * took)


def render_timeline(passes: Sequence[Timed], title: str) -> bytes:
    """Returns the timeline as SVG: a row for each stage, a bar for each pass with the number of its micro-batch."""
    import matplotlib  # heavy
    from matplotlib.figure import Figure

    first = min(timed.began for timed in passes)
    stages = 1 + max(timed.stage_pass.stage for timed in passes)
    figure = Figure(figsize=(10, 1.2 + 0.6 * stages), layout="constrained")
    axes = figure.add_subplot()
    for kind, colour in COLOURS.items():
        own = [timed for timed in passes if timed.stage_pass.kind == kind]
        for stage in range(stages):
            bars = [
                ((timed.began - first) * 1000, (timed.ended - timed.began) * 1000)
                for timed in own
                if timed.stage_pass.stage == stage
            ]
            label = None if stage else kind
            axes.broken_barh(bars, (stage - 0.4, 0.8), color=colour, edgecolor="white", label=label)
        for timed in own if len(passes) <= MAX_NUMBERED else []:
            middle = ((timed.began + timed.ended) / 2 - first) * 1000
            centred: dict[str, Any] = {"ha": "center", "va": "center", "color": "white", "zorder": 3}
            axes.text(middle, timed.stage_pass.stage, str(timed.stage_pass.micro_batch + 1), **centred)
    axes.set_yticks(range(stages), [f"stage {stage}" for stage in range(stages)])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "stillhouse"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
