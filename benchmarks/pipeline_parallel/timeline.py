"""Pictures of a step as it really ran: what each stage did when.

  python -W ignore -m benchmarks.pipeline_parallel.timeline

Writes timelines/SCHEDULE.svg for K = 2 and M = 8 of the network of `run`, one step after some to warm up. Each stage
notes the time by the clock of its process; they are on one machine.
"""

from pathlib import Path

import typer

from benchmarks.pipeline_parallel.run import SCHEDULES, run_cluster

FOLDER = Path(__file__).parent / "timelines"
STAGES, MICRO_BATCHES = 2, 8


def main(threads: int = 3) -> None:
    """Measures and draws."""
    from stillhouse.modules.large_models.pipeline import Pass
    from stillhouse.modules.large_models.timeline import Timed, busy, render_timeline

    measured = run_cluster(STAGES, threads, str(MICRO_BATCHES), "--clocked")
    FOLDER.mkdir(exist_ok=True)
    for schedule in SCHEDULES:
        passes = [Timed(Pass(**timed["stage_pass"]), timed["began"], timed["ended"]) for timed in measured[schedule]]
        (FOLDER / f"{schedule}.svg").write_bytes(render_timeline(passes, f"{schedule}, {MICRO_BATCHES} micro-batches"))
        print(f"{schedule}: stages were busy for {busy(passes):.0%} of the step")


if __name__ == "__main__":
    typer.run(main)
