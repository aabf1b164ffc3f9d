"""Tables of every key of a settings file, generated from the models that validate it.

python -m stillhouse.modules.settings.table > docs/settings.md
"""

import json
from typing import Any

from stillhouse.modules.settings import Settings

TITLE = """# Settings

Every key of a settings file, generated from the models that validate it ([modules/settings](../modules/settings)) by
`python -m stillhouse.modules.settings.table`; a test keeps this page current. A key without a default is required.
`--set student.epochs=5` overrides a key.
"""
# Constraints of a JSON schema on numbers, strings and lists.
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "{} or more",
    "pattern": "matches `{}`",
}


def settings_tables() -> str:
    """Returns the Markdown: one table per section, in the order of their first mention."""
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


def _table(keys: str, name: str, section: dict[str, Any], definitions: dict[str, Any]) -> str:
    heading = f"## {name}\n\n`{keys}`" if keys else "## The file"
    lines = [
        heading,
        "",
        section.get("description", ""),
        "",
        "| key | value | default | description |",
        "|---|---|---|---|",
    ]
    for key, field in section["properties"].items():
        default = "" if key in section.get("required", []) else _default(field)
        description = field.get("description") or " ".join(
            definitions[reference].get("description", "") for reference in _references(field)
        )
        cells = (f"`{key}`", _allowed(field), default, description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(field: dict[str, Any]) -> str:
    if _references(field) and isinstance(field.get("default"), dict):
        return "defaults of its keys"
    return f"`{json.dumps(field['default'])}`" if "default" in field else ""


def _references(field: dict[str, Any]) -> list[str]:
    """Returns the names of the sections that a field's value may be or contain."""
    if "$ref" in field:
        return [field["$ref"].rpartition("/")[2]]
    inner = [*field.get("anyOf", []), *field.get("allOf", [])]
    inner += [schema for schema in (field.get("items"), field.get("additionalProperties")) if isinstance(schema, dict)]
    return [reference for schema in inner for reference in _references(schema)]


def _allowed(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        alternatives = [_allowed(alternative) for alternative in field["anyOf"]]
        return (", or " if any("," in text for text in alternatives) else " or ").join(alternatives)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type")
    if kind == "array":
        kind = f"list of {_element(field['items'])}" if "items" in field else "list"
    elif kind == "object":
        inner = field.get("additionalProperties")
        kind = f"mapping of names to {_element(inner)}" if isinstance(inner, dict) and inner else "mapping"
    words = {"boolean": "`true` or `false`", None: "any value"}
    limits = [text.format(field[limit]) for limit, text in LIMITS.items() if limit in field]
    return ", ".join([words.get(kind, str(kind)), *limits])


def _element(field: dict[str, Any]) -> str:
    """Returns the words for elements of a list or mapping; alternatives and limits in brackets."""
    words = _allowed(field)
    if words in ("integer", "number", "string"):
        return f"{words}s"
    return f"({words})" if " or " in words or ", " in words else words


if __name__ == "__main__":
    print(settings_tables(), end="")
