"""stillhouse pushed and stillhouse rollback: the versions in a push folder, and the way back to one of them."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stillhouse.modules.errors import UserError
from stillhouse.modules.pushes.listing import list_versions
from stillhouse.modules.pushes.rollback import roll_back
from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.cli.options import Json, Overrides, SettingsFile, output

RUNS = Path("runs")


def pushed(settings_file: SettingsFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """List the pushed versions, newest first: time, run, metrics, gates, and which one is served."""
    push_path = _push_path(settings_file, overrides)
    versions = [asdict(version) for version in list_versions(push_path, _comparisons())]
    if as_json:
        print(json.dumps({"push_path": push_path, "versions": versions}, indent=1))
    elif not versions:
        raise UserError(f"push.path: no versions in {push_path}; `stillhouse run` pushes one")
    else:
        _print_versions(push_path, versions, output())


def rollback(
    settings_file: SettingsFile,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Version to go back to; default: the previous model.")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Push an older version again, as the newest, which model servers then load."""
    push_path = _push_path(settings_file, overrides)
    done = roll_back(push_path, to)
    served = os.path.join(push_path, done.version)
    if as_json:
        print(json.dumps({"pushed": served, "copy_of": None if done.source == done.version else done.source}, indent=1))
    elif done.source == done.version:
        output().print(
            f"{escape(served)} is the newest version already; nothing to do", highlight=False, soft_wrap=True
        )
    else:
        text = f"pushed to {escape(served)}, a copy of version {escape(done.source)}"
        output().print(text, highlight=False, soft_wrap=True)


def _push_path(settings_file: Path, overrides: list[str] | None) -> str:
    path = load_settings(settings_file, overrides).push.path
    return path if "://" in path else os.path.abspath(path)


def _comparisons() -> list[dict[str, Any]]:
    """Returns the comparisons of the runs below runs/; corrupt ones are skipped."""
    comparisons = []
    for path in sorted(RUNS.glob("*/comparison.json")):
        try:
            comparison = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(comparison, dict) and comparison.get("pushed"):
            comparisons.append(comparison)
    return comparisons


def _print_versions(push_path: str, versions: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=push_path, title_justify="left")
    for name in ("version", "time (UTC)", "run", "metrics", "gates", "state"):
        table.add_column(name)
    for version in versions:
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in version["metrics"].items())
        gates = ", ".join(f"{gate['name']} {'passed' if gate['passed'] else 'failed'}" for gate in version["gates"])
        state = ["served"] if version["served"] else []
        state += [f"copy of {version['copy_of']}"] if version["copy_of"] else []
        state += [version["fault"]] if version["fault"] else []
        cells = [version["version"], (version["time"] or "").replace("T", " ").removesuffix("+00:00")]
        cells += [version["run_id"] or "", metrics, gates, "; ".join(state)]
        table.add_row(*map(escape, cells), style="bold" if version["served"] else None)
    console.print(table)
