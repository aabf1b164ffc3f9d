"""stillhouse report: the comparison of a finished run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from stillhouse.modules.errors import UserError
from stillhouse.pipelines.cli.compare_runs import compare_runs, print_runs
from stillhouse.pipelines.cli.comparison_table import print_comparison
from stillhouse.pipelines.cli.dark_knowledge_table import print_dark_knowledge
from stillhouse.pipelines.cli.options import Json, output


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="A run's folder, or its name under runs/; default: the last."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Compare settings and results of several runs.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open report.html in the browser.")] = False,
    dark_knowledge: Annotated[
        bool,
        typer.Option("--dark-knowledge", help="Print the dark knowledge of the teachers' soft targets instead."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the comparison of a finished run, its dark knowledge, or how runs differ."""
    runs = runs or []
    if compare:
        if len(runs) < 2:
            raise UserError(f"--compare: found {len(runs)} runs; expected at least 2")
        paths = [_comparison_of(run) for run in runs]
        comparison = compare_runs([str(run) for run in runs], [_read(path) for path in paths])
        print(json.dumps(comparison, indent=1)) if as_json else print_runs(comparison, output())
        return
    if len(runs) > 1:
        raise UserError(f"found {len(runs)} runs; expected one; add --compare to compare them")
    path = _comparison_of(runs[0]) if runs else _last_comparison()
    if open_page:
        page = path.with_name("report.html")
        if not page.is_file():
            raise UserError(f"{page}: no such file; repeat `stillhouse run` to create it")
        typer.launch(page.absolute().as_uri())
    show: Callable[[dict[str, Any], Console], None] = print_comparison
    if dark_knowledge:
        path, show = path.parent / "dark_knowledge" / "dark_knowledge.json", print_dark_knowledge
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; it is written for the head classification, unless "
                "student.distillation.dark_knowledge is []"
            )
    content = _read(path)
    if as_json:
        print(json.dumps(content, indent=1))
    else:
        show(content, output())


def _last_comparison() -> Path:
    comparisons = sorted(Path("runs").glob("*/comparison.json"), key=lambda path: path.stat().st_mtime)
    if not comparisons:
        raise UserError("runs/: no finished run; `stillhouse run SETTINGS` creates one")
    return comparisons[-1]


def _comparison_of(run: Path) -> Path:
    path = (run if run.is_dir() else Path("runs") / run) / "comparison.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; the run has not finished, or this is not a run's folder")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); repeat `stillhouse run` to recreate it") from error
