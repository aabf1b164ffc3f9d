"""The commit that a pipeline is made from, if it stands in a git repository."""

import subprocess
from pathlib import Path

UNCOMMITTED = " with uncommitted changes"


def commit_of(folder: Path) -> str:
    """Returns the commit of the repository of `folder`, and whether files differ from it; "": there is none."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + (UNCOMMITTED if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, or no commit in it yet
        return ""


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
