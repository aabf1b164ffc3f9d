"""What several commands share: arguments, quiet libraries, the way to a compiled pipeline."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from stillhouse.modules.settings import Settings
from stillhouse.pipelines.cli.console import Console
from stillhouse.pipelines.cli.quiet_import import import_tensorflow

SettingsFile = Annotated[Path, typer.Argument(metavar="SETTINGS", help="The settings file (YAML).")]
Root = Annotated[Path | None, typer.Option(help="Folder of artifacts and results; default: runs/NAME.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides one setting.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def output() -> Console:
    """Returns the console of stdout."""
    # A pipe or a file has no width; the table wants some.
    return Console() if sys.stdout.isatty() else Console(width=120)


def make_importable(settings_file: Path) -> None:
    """Lets task modules be found beside the settings file and in the working directory."""
    for folder in (os.getcwd(), str(settings_file.absolute().parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def quieten(verbose: bool) -> None:
    """Sets what of the libraries' logs is shown; the progress of a run is drawn from absl's records in any case."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0" if verbose else "3"
    if not verbose:
        warnings.simplefilter("ignore")
    from absl import logging as absl_logging

    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    logging.getLogger("stillhouse").setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        # The records must be made for the view to see them, but nobody else prints them.
        logging.getLogger("absl").propagate = False
        logging.getLogger("stillhouse").propagate = False
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.CRITICAL)
        import_tensorflow()
        import tensorflow as tf

        tf.get_logger().setLevel(logging.CRITICAL)


def compiled(settings_file: Path, settings: Settings, image: str, console: Console) -> list[dict[str, Any]]:
    """Returns the documents of the pipeline for Kubeflow; warns of an image that is doubtful."""
    make_importable(settings_file)
    quieten(verbose=False)
    from stillhouse.pipelines.kubeflow.compile import compile_pipeline
    from stillhouse.pipelines.kubeflow.image_name import check_image

    if doubt := check_image(image):
        console.print(f"[yellow]warning:[/yellow] {escape(doubt)}", highlight=False, soft_wrap=True)
    documents = compile_pipeline(settings, image)
    if settings.kubeflow.cache and not settings.kubeflow.storage:
        note = (
            "every run does everything anew: kubeflow.storage is not set, by which tasks find results of earlier runs"
        )
        console.print(f"[dim]{note}[/dim]", highlight=False, soft_wrap=True)
    return documents
