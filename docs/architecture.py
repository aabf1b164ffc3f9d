"""Draws the rooms from their imports and the digits' DAG into docs/architecture.md: python docs/architecture.py."""

import ast
from collections import defaultdict
from pathlib import Path

from dag import EXAMPLES, load_settings, mermaid, replace_blocks

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "architecture.md"
PACKAGE = "stillhouse"
HOUSES = ("pipelines", "components", "modules")
ROOMS_MARK = "<!-- rooms: by docs/architecture.py -->\n"
DAG_MARK = "<!-- digits: by docs/architecture.py -->\n"


def room_of(module: str) -> str:
    """Returns the room of a module below stillhouse: a folder of a house; the house itself for a single file in it.

    Components are one room: they stand side by side and are chained by pipelines.dag.
    """
    house, *inside = module.split(".")
    is_folder = bool(inside) and (REPOSITORY / house / inside[0]).is_dir()
    return f"{house}.{inside[0]}" if house != "components" and is_folder else house


def imports_of(source: Path) -> set[str]:
    """Returns the modules of ours that a file imports, without the package's name, wherever in the file it does so."""
    modules = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module.partition(".")[2] for module in modules if module.partition(".")[0] == PACKAGE}


def doors() -> dict[str, set[str]]:
    """Returns {room: rooms that its files import}."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for house in HOUSES:
        for source in sorted((REPOSITORY / house).rglob("*.py")):
            room = room_of(".".join(source.relative_to(REPOSITORY).with_suffix("").parts))
            arrows[room] |= {room_of(module) for module in imports_of(source) if module.split(".")[0] in HOUSES}
            arrows[room].discard(room)
    return dict(arrows)


def reachable(arrows: dict[str, set[str]], start: str, without: str) -> set[str]:
    """Returns the rooms that `start` reaches, but for the door straight to `without`."""
    seen: set[str] = set()
    waiting = [room for room in arrows.get(start, ()) if room != without]
    while waiting:
        room = waiting.pop()
        if room not in seen:
            seen.add(room)
            waiting += arrows.get(room, ())
    return seen


def rooms() -> str:
    """Returns the rooms as Mermaid, a box for each house. A door that longer ways imply is left out."""
    arrows = doors()
    names = sorted({*arrows, *(room for targets in arrows.values() for room in targets)} - {"modules", "pipelines"})
    lines = ["flowchart TD"]
    for house in HOUSES:
        lines.append(f"  subgraph {house}")
        lines += [
            f"    {_node(name)}[{name.partition('.')[2] or name}]" for name in names if name.split(".")[0] == house
        ]
        lines.append("  end")
    for room in names:
        for target in sorted(arrows.get(room, set()) & set(names)):
            if target not in reachable(arrows, room, target):
                lines.append(f"  {_node(room)} --> {_node(target)}")
    return "\n".join(lines) + "\n"


def _node(room: str) -> str:
    return room.replace(".", "_") + ("_" if room in HOUSES else "")


def blocks() -> dict[str, str]:
    """Returns what stands in the page behind each mark."""
    digits = mermaid(load_settings(EXAMPLES / "digits.yaml"))
    return {mark: f"{mark}```mermaid\n{text}```\n" for mark, text in ((ROOMS_MARK, rooms()), (DAG_MARK, digits))}


if __name__ == "__main__":
    replace_blocks(PAGE, blocks())
