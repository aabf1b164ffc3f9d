"""Reads YAML as plain data: mappings with string keys, lists, strings, finite numbers, booleans and null, as JSON has.

What YAML has beyond that (dates, binary data, sets, tags, keys that are no strings) could not be written down with a
run and read again, so it is refused with its line, and so is what PyYAML accepts in silence: a key that stands twice,
an alias within itself, aliases that multiply.
"""

import math
import re
from typing import Any

import yaml

MAX_CHARACTERS = 1_000_000
MAX_NODES = 20_000  # keys and values, those behind aliases counted each time
MAX_DEPTH = 64
MAX_NUMBER = 100  # characters; PyYAML takes minutes for a number of a million digits
MAX_SHOWN = 40  # characters of a value in a message
INT64 = range(-(1 << 63), 1 << 63)

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null")}
_NOT_DATA = {"timestamp": "a date", "binary": "binary data", "set": "a set", "omap": "an ordered mapping"}


class YamlError(Exception):
    """The text is not YAML, or not plain data.

    Attributes:
      line: number of the line with the fault, from 1.
    """

    def __init__(self, problem: str, line: int):
        super().__init__(problem)
        self.line = line


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads 1e-3 as a number, as YAML 1.2 does; YAML 1.1 requires 1.0e-3."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        self._nodes += 1
        line = self.peek_event().start_mark.line + 1
        if self._depth > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep", line)
        if self._nodes > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES:,} keys and values", line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.add_implicit_resolver(f"{_TAG}float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


class _Data:
    """Turns composed nodes into data. Nodes behind aliases become values of their own, which nothing else shares."""

    def __init__(self, loader: _Loader):
        self._loader = loader
        self._open: list[yaml.Node] = []  # the node and those around it
        self._count = 0

    def of(self, node: yaml.Node) -> Any:
        """Returns the data of a node."""
        self._count += 1
        if self._count > MAX_NODES:
            raise _fault(f"aliases multiply to more than {MAX_NODES:,} keys and values", node)
        if any(node is around for around in self._open):
            raise _fault("an alias stands within the value that it names", node)
        if len(self._open) >= MAX_DEPTH:
            raise _fault(f"aliases nest to more than {MAX_DEPTH} levels", node)
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node)
        if isinstance(node, yaml.ScalarNode) and kind in _NOT_DATA:
            raise _fault(f"{_shown(node)} is {_NOT_DATA[kind]}; for a string put it into quotes", node)
        self._open.append(node)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            data: Any = self._mapping(node)
        elif isinstance(node, yaml.SequenceNode) and kind == "seq":
            data = [self.of(item) for item in node.value]
        else:
            tag = node.tag.replace(_TAG, "!!", 1)
            raise _fault(f"found {_NOT_DATA.get(kind, f'the tag {tag}')}; expected a mapping, a list or a value", node)
        self._open.pop()
        return data

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            merge = key_node.tag == f"{_TAG}merge"
            if not merge and key_node.tag != f"{_TAG}str":
                raise _fault(f"the key {_shown(key_node)} is no string; put it into quotes", key_node)
            key = key_node.value if merge else self.of(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                raise _fault(f"the key {_shown(key_node)} stands in line {lines[key]} already; remove one", key_node)
            lines[key] = line
            if merge:
                merged = self._merged(value)
            else:
                own[key] = self.of(value)
        return merged | own

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in reversed(sources):  # of a key in several, the first counts
            if not isinstance(source, yaml.MappingNode):
                raise _fault(f"<< merges mappings; found {_shown(source)}", source)
            merged |= self.of(source)
        return merged

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            if re.search("[\0\ud800-\udfff]", node.value):
                raise _fault(f"{_shown(node)} has a character that no text has (NUL or half a surrogate pair)", node)
            return node.value
        if len(node.value) > MAX_NUMBER:
            raise _fault(f"{_shown(node)} is a number of more than {MAX_NUMBER} characters", node)
        try:
            value = self._loader.construct_object(node)
        except (ValueError, LookupError, OverflowError) as error:
            kind = {"int": "integer", "bool": "boolean"}.get(kind, kind)
            raise _fault(f"{_shown(node)} is not a valid {kind}", node) from error
        if isinstance(value, int) and value not in INT64:
            raise _fault(f"{_shown(node)} is too large; expected an integer of at most 64 bits", node)
        if isinstance(value, float) and not math.isfinite(value):
            raise _fault(f"{_shown(node)} is not a finite number", node)
        return value


def _shown(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    return repr(node.value if len(node.value) <= MAX_SHOWN else f"{node.value[:MAX_SHOWN]}...")


def _fault(problem: str, node: yaml.Node) -> YamlError:
    return YamlError(problem, node.start_mark.line + 1)


def read_yaml(text: str) -> Any:
    """Returns the data of a YAML document; None if it is empty.

    Raises:
      YamlError: it is not YAML, not plain data, too large or nested too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"found more than {MAX_CHARACTERS:,} characters; expected a file of settings", 1)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Data(loader).of(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"not valid YAML: the character {chr(error.character)!r} is not allowed", line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise YamlError(f"not valid YAML: {problem}", mark.line + 1 if mark else 1) from error
    except (ValueError, OverflowError) as error:  # of an escape or a %YAML directive, which the scanner converts itself
        raise YamlError(f"not valid YAML: {error}", loader.get_mark().line + 1 if loader else 1) from error
