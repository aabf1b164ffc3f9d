"""stillhouse run: the pipeline on this machine."""

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from stillhouse.modules.errors import GATE_REFUSED, MachineError
from stillhouse.modules.pushes.versions import served_folder
from stillhouse.modules.settings import Settings, load_settings
from stillhouse.pipelines.cli.comparison_table import print_comparison
from stillhouse.pipelines.cli.console import Console
from stillhouse.pipelines.cli.options import Json, Overrides, Root, SettingsFile, make_importable, output, quieten
from stillhouse.pipelines.local import unchanged
from stillhouse.pipelines.local.run_view import RunView


def run(
    settings_file: SettingsFile,
    root: Root = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="Validate settings, data, task and models; print the DAG.")] = False,
    only_if_changed: Annotated[
        bool,
        typer.Option("--only-if-changed", help="Exit at once if data, settings and code have not changed."),
    ] = False,
    verbose: Annotated[bool, typer.Option(help="Show all of TFX's, Beam's and TensorFlow's logs.")] = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline on this machine. Exit code 0: pushed; 3: a gate failed, student not pushed."""
    settings = load_settings(settings_file, overrides)
    make_importable(settings_file)
    root = root or Path("runs") / settings.name
    fingerprint = unchanged.fingerprint_of(settings)
    if only_if_changed and not dry_run and (comparison := unchanged.unchanged_comparison(root, fingerprint)):
        Console(stderr=True).print(f"unchanged since the run {comparison['run_id']}; nothing to do", highlight=False)
        served = served_folder(os.path.abspath(settings.push.path))
        _finish(comparison | {"unchanged": True, "served": served}, as_json)
        return
    quieten(verbose)
    from stillhouse.pipelines.local import run as local

    if dry_run:
        _dry_run(settings, root, as_json)
        return
    view = RunView(Console(stderr=True), quiet=as_json)
    for name in ("absl", "stillhouse"):
        logging.getLogger(name).addHandler(view)
    try:
        comparison = local.run(settings, root, view)
    except KeyboardInterrupt as interrupt:
        where = f" in {view.node}" if view.node else ""  # between two nodes there is none
        raise MachineError(f"interrupted{where}; repeat the command to resume") from interrupt
    unchanged.remember(root, fingerprint)
    _finish(comparison, as_json, root / "report.html")


def _finish(comparison: dict[str, Any], as_json: bool, page: Path | None = None) -> None:
    if as_json:
        print(json.dumps(comparison, indent=1))
    else:
        print_comparison(comparison, output())
        if page:
            output().print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    if not comparison["pushed"]:
        raise typer.Exit(GATE_REFUSED)


def _dry_run(settings: Settings, root: Path, as_json: bool) -> None:
    from stillhouse.pipelines.dag.create import create_pipeline
    from stillhouse.pipelines.local.check import check_settings
    from stillhouse.pipelines.local.paths import check_root, local_paths

    check_root(root)
    check_settings(settings)
    pipeline = create_pipeline(settings, local_paths(settings, root))
    dag = {node.id: sorted(upstream.id for upstream in node.upstream_nodes) for node in pipeline.components}
    if as_json:
        print(json.dumps({"pipeline": settings.name, "nodes": dag}, indent=1))
        return
    console = Console(soft_wrap=True, highlight=False)
    for name, upstream in dag.items():
        console.print(f"  {name:<22} {'<- ' + ', '.join(upstream) if upstream else ''}".rstrip())
    console.print(f"{len(dag)} nodes; settings, data headers, task module and models are valid")
