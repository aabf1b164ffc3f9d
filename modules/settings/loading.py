"""Reads a settings file; every mistake in it becomes one line with the key's path."""

import difflib
import re
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings.pipeline import Settings
from stillhouse.modules.settings.yaml_data import MAX_CHARACTERS, MAX_DEPTH, YamlError, read_yaml

MAX_SHOWN = 200  # characters of a value in a message
# How pydantic's locations name a type among those that a key may have.
_TYPE = re.compile(r"int|str|(constrained-)?float|(literal|list|dict)\[.*\]")
# How pydantic's messages continue after "expected".
_PHRASES = (
    ("Value error, ", ""),
    ("Input should be ", ""),
    ("List should have ", ""),
    ("String should match pattern ", "a string that matches "),
    ("greater than ", "a value greater than "),
    ("less than ", "a value less than "),
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
    described = location  # the key itself, or the one whose list or mapping the value is in
    while described and described[-1] not in _fields(_section_at(described[:-1])):
        described = described[:-1]
    description = f" ({_fields(_section_at(described[:-1]))[described[-1]].description})" if described else ""
    if error["type"] == "missing":
        return f"{_path_of(location)}: missing{description}"
    for pydantic_phrase, phrase in _PHRASES:
        if message.startswith(pydantic_phrase):
            message = phrase + message.removeprefix(pydantic_phrase)
    message = re.sub(r" after validation, not \d+$", "", message)
    return f"{_path_of(location)}: found {_shown(error['input'])}; expected {message}{description}"


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."


def _one_per_key(errors: list[dict], raw: dict) -> list[dict]:
    """Returns the errors, those for the types that one key may have joined; pydantic names the type behind the key."""
    joined: list[dict] = []
    of_types: dict[tuple, dict] = {}
    for error in errors:
        location: tuple = ()
        value: Any = raw
        for key in error["loc"]:
            exists = key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))
            if exists or not _TYPE.fullmatch(str(key)):
                location += (key,)
                value = value[key] if exists else None
        if location == error["loc"]:
            joined.append(error)
        elif location in of_types:
            of_types[location]["msg"] += f" or {error['msg'].removeprefix('Input should be ')}"
        else:
            of_types[location] = error | {"loc": location}
            joined.append(of_types[location])

    def is_explained(location: tuple) -> bool:
        """Returns whether an error further inside says what is wrong with the one type that the value can have."""
        return any(len(other) > len(location) and other[: len(location)] == location for other in of_types)

    return [error for error in joined if not (error is of_types.get(error["loc"]) and is_explained(error["loc"]))]


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
        lines = [_explain(detail) for detail in _one_per_key([dict(detail) for detail in error.errors()], raw)]
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
        override.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--set {override}: not valid UTF-8") from error
    shown = override if len(override) <= MAX_SHOWN else f"{override[:MAX_SHOWN]}..."
    try:
        parsed = read_yaml(value)
    except YamlError as error:
        raise UserError(f"--set {shown}: the value: {error}") from error
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    if len(parents) > MAX_DEPTH:
        raise UserError(f"--set {shown}: found {len(parents)} keys; expected at most {MAX_DEPTH}")
    target: Any = raw
    for depth, key in enumerate(parents, start=1):
        if _is_index(key, target):
            target = target[int(key)]
        elif isinstance(target, dict):
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
        else:
            raise UserError(f"--set {shown}: {'.'.join(parents[:depth])[:MAX_SHOWN]} does not exist in the settings")
    if _is_index(last, target):
        target[int(last)] = parsed
    elif isinstance(target, dict):
        target[last] = parsed
    else:
        raise UserError(f"--set {shown}: {path[:MAX_SHOWN]} does not exist in the settings")


def _is_index(key: str, target: Any) -> bool:
    is_number = key.isascii() and key.isdecimal() and len(key) <= len(str(MAX_CHARACTERS))
    return isinstance(target, list) and is_number and int(key) < len(target)


def load_settings(path: Path, overrides: list[str] | None = None) -> Settings:
    """Reads the settings file `path` and applies `overrides` ("key.path=value").

    Raises:
      UserError: the file cannot be read, is not YAML, or has invalid settings.
    """
    try:
        with open(path, encoding="utf-8") as file:
            raw = read_yaml(file.read(MAX_CHARACTERS + 1))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason} (byte {error.object[error.start]:#x})") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except YamlError as error:
        raise UserError(f"{path}, line {error.line}: {error}") from error
    for override in overrides or []:
        if not isinstance(raw, dict):
            break
        apply_override(raw, override)
    return parse_settings(raw, str(path))
