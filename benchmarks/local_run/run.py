"""Wall time of the digits run, ours against a stock TFX script of the same nodes: python benchmarks/local_run/run.py.

Whole processes, from start to exit, each on a fresh root; the two take turns, so that a slow moment falls on both.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer

REPOSITORY = Path(__file__).parents[2]
OURS = "-m stillhouse run pipelines/examples/digits.yaml --root {root} --set push.path={root}/serving"
COMMANDS = {"stock": "-m benchmarks.local_run.stock {root}", "stillhouse": OURS}


def seconds(name: str) -> float:
    """Runs one of the two to its end and returns its wall time in seconds."""
    with tempfile.TemporaryDirectory() as root:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, *COMMANDS[name].format(root=root).split()],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.monotonic() - started
        pushed = list(Path(root, "serving").glob("[0-9]*"))
    if done.returncode or not pushed:
        sys.exit(f"{name}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    print(f"{name}: {took:.1f} s", file=sys.stderr)
    return took


def main(rounds: int = 3) -> None:
    """Prints medians, spreads and the ratio as Markdown."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, taken in times.items():
            taken.append(seconds(name))
    print(f"| run | median of {rounds} (s) | smallest to largest |\n|---|---|---|")
    for name, taken in times.items():
        print(f"| {name} | {statistics.median(taken):.1f} | {min(taken):.1f} to {max(taken):.1f} |")
    ratios = [ours / stock for ours, stock in zip(times["stillhouse"], times["stock"], strict=True)]
    print(f"| stillhouse / stock | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |")


if __name__ == "__main__":
    typer.run(main)
