"""Where a run on this machine reads and writes, and Beam's defaults for it."""

import os
import re
from pathlib import Path

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Settings
from stillhouse.pipelines.dag.commit import commit_of
from stillhouse.pipelines.dag.nodes import BEAM_OPTIONS, PipelinePaths

METADATA = "metadata.sqlite"  # below a run's root
ARTIFACTS = "artifacts"  # below a run's root


def saved_models(settings: Settings) -> dict[str, str]:
    """Returns where each teachers[].saved_model is; a path with a scheme is taken as it is."""
    paths = [teacher.saved_model for teacher in settings.teachers if teacher.saved_model]
    return {path: path if "://" in path else os.path.abspath(path) for path in paths}


def check_root(root: Path) -> None:
    r"""Checks that TFX, Beam and TensorFlow read the artifacts' paths as they are: * ? [ ] and \ make a pattern.

    Raises:
      UserError: the root or a folder above it has one of these in its name, or a control character.
    """
    path = str(root.absolute())
    if re.search(r"[*?\[\]\\]", path) or not path.isprintable():
        raise UserError(
            f"--root: found {path!r}; expected a path without * ? [ ] \\ and control characters (TFX takes them for a "
            "pattern); choose another --root or rename the folder"
        )


def local_paths(settings: Settings, root: Path) -> PipelinePaths:
    """Returns where a local run of the settings under `root` reads and writes."""
    root = root.absolute()
    return PipelinePaths(
        root=str(root / ARTIFACTS),
        checkpoints=str(root / ARTIFACTS / "checkpoints"),
        cache=str(root / ARTIFACTS / "input_cache"),
        data_path=os.path.abspath(settings.data.path),
        push_path=os.path.abspath(settings.push.path),
        metadata_path=str(root / METADATA),
        transfer_path=os.path.abspath(settings.data.transfer) if settings.data.transfer else None,
        saved_models=saved_models(settings),
        schema_path=os.path.abspath(settings.data.schema_file) if settings.data.schema_file else None,
        beam_options=settings.beam.options or list(BEAM_OPTIONS),
        commit=commit_of(Path()),
    )
