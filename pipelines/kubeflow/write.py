"""Files that are written whole or not at all."""

from pathlib import Path

from modules.errors import UserError


def write_whole(path: Path, text: str, option: str) -> None:
    """Writes a file aside and puts it in place.

    Raises:
      UserError: it cannot be written; the message names `option`.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{option}: cannot write {path}: {error.strerror}") from error
