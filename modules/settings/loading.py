"""Reads a settings file; every mistake in it becomes one line with the key's path."""

import difflib
import re
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings.pipeline import Settings


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads 1e-3 as a number, as YAML 1.2 does; YAML 1.1 requires 1.0e-3."""


# How pydantic's messages continue after "expected".
_PHRASES = (
    ("Value error, ", ""),
    ("Input should be ", ""),
    ("List should have ", ""),
    ("String should match pattern ", "a string that matches "),
    ("greater than ", "a value greater than "),
    ("less than ", "a value less than "),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _fields(section: type[BaseModel] | None) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in section.model_fields.items()} if section else {}


def _section_at(location: tuple) -> type[BaseModel] | None:
    """Returns the section whose keys stand below `location`; None if its value is no section."""
    section: type[BaseModel] = Settings
    keys = iter(location)
    for key in keys:
        if isinstance(key, int):
            continue
        if key not in _fields(section):
            return None
        annotation = _fields(section)[key].annotation
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not sections:
            return None
        section = sections[0]
        if get_origin(annotation) is dict:
            next(keys, None)  # a name that the user chose
    return section


def _path_of(location: tuple) -> str:
    path = ""
    for key in location:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
    return path


def _explain(error: dict) -> str:
    """Returns one line for an error of pydantic's: the key's path, the value found, the values expected."""
    location = error["loc"]
    message = error["msg"].removeprefix("Value error, ")
    if not location:  # a rule between sections, whose message names the keys
        return message
    # A rule between keys of a section: the message begins with the keys, and the value of the section says nothing.
    if error["type"] == "value_error" and re.split(r"[.,:]", message)[0] in _fields(_section_at(location)):
        return f"{_path_of(location)}.{message}"
    fields = _fields(_section_at(location[:-1]))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{_path_of(location)}: unknown key{hint} (allowed here: {', '.join(fields)})"
    description = f" ({fields[location[-1]].description})" if location[-1] in fields else ""
    if error["type"] == "missing":
        return f"{_path_of(location)}: missing{description}"
    for pydantic_phrase, phrase in _PHRASES:
        if message.startswith(pydantic_phrase):
            message = phrase + message.removeprefix(pydantic_phrase)
    message = re.sub(r" after validation, not \d+$", "", message)
    return f"{_path_of(location)}: found {error['input']!r}; expected {message}{description}"


def parse_settings(raw: Any, source: str) -> Settings:
    """Returns the settings in the mapping `raw`; `source` is named in errors.

    Raises:
      UserError: one line per mistake, with the key's path, the value found and the values expected.
    """
    if not isinstance(raw, dict):
        raise UserError(f"{source}: expected a mapping of settings, found {type(raw).__name__}")
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(dict(detail)) for detail in error.errors()]
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from error


def apply_override(raw: dict, override: str) -> None:
    """Sets one key in `raw` by "key.path=value"; the value is YAML, list items are numbered: teachers.0.epochs=5.

    Raises:
      UserError: the override is not KEY=VALUE, or its path does not exist.
    """
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set {override}: expected KEY=VALUE, such as student.epochs=5")
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML: {error}") from error
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    target: Any = raw
    for depth, key in enumerate(parents, start=1):
        if isinstance(target, list) and key.isdigit() and int(key) < len(target):
            target = target[int(key)]
        elif isinstance(target, dict):
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            raise UserError(f"--set {override}: {'.'.join(parents[:depth])} does not exist in the settings")
    if isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = parsed
    elif isinstance(target, dict):
        target[last] = parsed
    else:
        raise UserError(f"--set {override}: {path} does not exist in the settings")


def load_settings(path: Path, overrides: list[str] | None = None) -> Settings:
    """Reads the settings file `path` and applies `overrides` ("key.path=value").

    Raises:
      UserError: the file cannot be read, is not YAML, or has invalid settings.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    for override in overrides or []:
        if not isinstance(raw, dict):
            break
        apply_override(raw, override)
    return parse_settings(raw, str(path))
