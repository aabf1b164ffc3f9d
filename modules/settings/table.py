"""Every key of a settings file in tables, from the models that check them.

python -m stillhouse.modules.settings.table > docs/settings.md
"""

import json
from typing import Any

from stillhouse.modules.settings import Settings

TITLE = """# Settings

Every key of a settings file, from the models that check it ([modules/settings](../modules/settings)). Written
by `python -m stillhouse.modules.settings.table`; a test keeps it current. A key without a default has to be there.
`--set student.epochs=5` overrides one.
"""
# What a JSON schema says about numbers and lists.
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "at least {}",
    "pattern": "matches `{}`",
}


def settings_tables() -> str:
    """Returns the Markdown: a table for each section, in the order in which they are first named."""
    schema = Settings.model_json_schema()
    sections, queue = [TITLE], [("", "Settings", schema)]
    seen = {"Settings"}
    while queue:
        keys, name, section = queue.pop(0)
        sections.append(_table(keys, name, section, schema["$defs"]))
        for key, field in section["properties"].items():
            for reference in _references(field):
                if reference not in seen:
                    seen.add(reference)
                    queue.append((f"{keys}.{key}".strip("."), reference, schema["$defs"][reference]))
    return "\n".join(sections)


def _table(keys: str, name: str, section: dict[str, Any], of_name: dict[str, Any]) -> str:
    heading = f"## {name}\n\n`{keys}`" if keys else "## The file"
    lines = [
        heading,
        "",
        section.get("description", ""),
        "",
        "| key | what is allowed | default | what |",
        "|---|---|---|---|",
    ]
    for key, field in section["properties"].items():
        default = "" if key in section.get("required", []) else _default(field)
        what = field.get("description") or " ".join(of_name[one].get("description", "") for one in _references(field))
        cells = (f"`{key}`", _allowed(field), default, what)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(field: dict[str, Any]) -> str:
    if _references(field) and isinstance(field.get("default"), dict):
        return "its defaults"
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def _references(field: dict[str, Any]) -> list[str]:
    """Returns the sections that a field's value may be or hold."""
    if "$ref" in field:
        return [field["$ref"].rpartition("/")[2]]
    inner = [*field.get("anyOf", []), *field.get("allOf", [])]
    inner += [of for of in (field.get("items"), field.get("additionalProperties")) if isinstance(of, dict)]
    return [reference for of in inner for reference in _references(of)]


def _allowed(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return ", or ".join(_allowed(of) for of in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type")
    if kind == "array":
        kind = f"list of {_allowed(field['items'])}" if "items" in field else "list"
    elif kind == "object":
        inner = field.get("additionalProperties")
        kind = f"names with {_allowed(inner)}" if isinstance(inner, dict) and inner else "names with values"
    words = {"integer": "whole number", "boolean": "`true`, `false`", "string": "text", None: "anything"}
    limits = [text.format(field[limit]) for limit, text in LIMITS.items() if limit in field]
    return ", ".join([words.get(kind, kind), *limits])


if __name__ == "__main__":
    print(settings_tables(), end="")
