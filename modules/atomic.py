"""Writes files completely or not at all."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes a file under a temporary name and renames it into place."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
