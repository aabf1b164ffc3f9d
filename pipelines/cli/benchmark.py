"""stillhouse benchmark ingestion: the ways to read a run's own examples, measured."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow_transform as tft
from rich.console import Console
from rich.table import Table

from stillhouse.modules.errors import UserError
from stillhouse.modules.ingestion.choice import choose, decoded_bytes
from stillhouse.modules.ingestion.examples import ExampleParser, label_spec
from stillhouse.modules.ingestion.files import ExampleFiles, example_files
from stillhouse.modules.ingestion.measure import NAIVE, Rate, measure
from stillhouse.modules.ingestion.stream import Source
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.settings import Settings


def newest(folder: Path) -> Path | None:
    """Returns the newest output of a TFX component: a folder that is named by a number."""
    outputs = [path for path in folder.glob("*") if path.name.isdigit()]
    return max(outputs, key=lambda path: int(path.name), default=None)


def measure_ingestion(settings: Settings, root: Path, rounds: int, seconds: float, on_progress) -> dict[str, Any]:
    """Returns what each way to read the train split of the newest run under `root` gives.

    Raises:
      UserError: there is no run with transformed examples.
    """
    transform = root / "artifacts" / "Transform"
    examples, graph = newest(transform / "transformed_examples"), newest(transform / "transform_graph")
    if examples is None or graph is None:
        raise UserError(f"{root}: no run with transformed examples; `stillhouse run SETTINGS` creates one")
    spec = tft.TFTransformOutput(str(graph)).transformed_feature_spec()
    head = HEADS[settings.head]
    label_spec(spec, settings.data.label, head)
    parser = ExampleParser(spec, settings.data.label, head)
    files = example_files([str(examples / "Split-train" / "*")])
    batch_size = settings.student.batch_size
    rates = measure(Source(ExampleFiles(files)), parser, batch_size, settings.ingestion, rounds, seconds, on_progress)
    return {
        "files": len(files),
        "batch_size": batch_size,
        "auto": choose(settings.ingestion, decoded_bytes(files, parser))[1],
        "rates": [asdict(rate) | {"median": rate.median} for rate in rates],
    }


def print_rates(measurements: dict[str, Any], console: Console) -> None:
    """Prints what `measure_ingestion` returned."""
    rates = [Rate(rate["way"], rate["examples_per_second"], rate["prepared_seconds"]) for rate in measurements["rates"]]
    slowest = next(rate.median for rate in rates if rate.way == NAIVE)
    table = Table("way", "examples per second", "spread", "× naive", "ready after", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for rate in rates:
        low, high = min(rate.examples_per_second), max(rate.examples_per_second)
        way = rate.way if ":" in rate.way else f"cache: {rate.way}"
        ready = f"{rate.prepared_seconds:.1f} s" if rate.prepared_seconds else ""
        spread = f"{low:,.0f} to {high:,.0f}"
        table.add_row(way, f"{rate.median:,.0f}", spread, f"{rate.median / slowest:.1f}", ready)
    console.print(table)
    console.print(f"auto takes {measurements['auto']}", highlight=False)
