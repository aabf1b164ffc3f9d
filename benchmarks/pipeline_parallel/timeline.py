"""Pictures of a step as it really ran: what each stage did when.

  python -W ignore -m benchmarks.pipeline_parallel.timeline

Writes timelines/SCHEDULE.svg for K = 2 and M = 8 of the network of `run`, one step after some to warm up. Each stage
notes the time by the clock of its process; they are on one machine.
"""

import json
from pathlib import Path

import matplotlib
import typer

from benchmarks.pipeline_parallel.run import SCHEDULES, run_cluster

FOLDER = Path(__file__).parent / "timelines"
STAGES, MICRO_BATCHES = 2, 8
COLOURS = {"forward": "#4c78a8", "backward": "#f58518"}


def draw(passes: list[dict], schedule: str, path: Path) -> None:
    """Draws the passes {kind, stage, micro_batch, began, ended}, in seconds."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "stillhouse"
    from matplotlib import pyplot

    first = min(one["began"] for one in passes)
    figure, axes = pyplot.subplots(figsize=(10, 2.6), layout="constrained")
    for kind, colour in COLOURS.items():
        for stage in range(STAGES):
            own = [one for one in passes if one["kind"] == kind and one["stage"] == stage]
            bars = [((one["began"] - first) * 1000, (one["ended"] - one["began"]) * 1000) for one in own]
            axes.broken_barh(
                bars, (stage - 0.4, 0.8), color=colour, edgecolor="white", label=kind if not stage else None
            )
            for one, (left, width) in zip(own, bars, strict=True):
                axes.text(
                    left + width / 2,
                    stage,
                    str(one["micro_batch"] + 1),
                    ha="center",
                    va="center",
                    color="white",
                    zorder=3,
                )
    axes.set_yticks(range(STAGES), [f"stage {stage + 1}" for stage in range(STAGES)])
    axes.invert_yaxis()
    axes.set_xlabel("ms")
    axes.set_title(f"{schedule}, {MICRO_BATCHES} micro-batches")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(threads: int = 3) -> None:
    """Measures and draws."""
    found = run_cluster(STAGES, threads, str(MICRO_BATCHES), "--clocked")
    for schedule in SCHEDULES:
        path = FOLDER / f"{schedule}.svg"
        draw(found[schedule], schedule, path)
        print(json.dumps({"wrote": str(path), "passes": len(found[schedule])}))


if __name__ == "__main__":
    typer.run(main)
