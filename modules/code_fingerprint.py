"""Fingerprints of code, so that TFX's cache notices changes of code.

TFX caches by inputs and execution properties. A function's import path is the same property whatever the function does,
so its fingerprint is a property of its own.
"""

import ast
import hashlib
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

OWN_PACKAGE = __name__.partition(".")[0]


def _source(module: str) -> Path | None:
    """Returns the file of a module. Unlike importlib.util.find_spec, it imports no packages on the way."""
    names = module.split(".")
    # Python's own finders know the packages of an editable installation; ours has the rooms below its top one.
    found_by_python = 2 if names[0] == OWN_PACKAGE and len(names) > 1 else 1
    spec = find_spec(".".join(names[:found_by_python]))
    for depth in range(found_by_python + 1, len(names) + 1):
        if spec is None:
            return None
        path = spec.submodule_search_locations or ()  # nothing is in a module that is no package
        spec = PathFinder.find_spec(".".join(names[:depth]), path)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _imports(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def code_fingerprint(module: str, without: tuple[str, ...] = ()) -> str:
    """Returns a hash of the code of the module and of the modules of its own project that it imports.

    Comments and layout do not count. Of the imported modules those count that are in the same top-level package (for
    stillhouse's own modules, in any of its packages), or, for a module outside packages, in the same folder.

    Args:
      module: import path; the module is read, not imported.
      without: top-level functions of the module itself to exclude, because they do not concern the caller.
    """
    root = module.partition(".")[0]
    start = _source(module)
    if start is None:
        return ""
    digests: dict[str, str] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        path = _source(name)
        if name in digests or path is None:
            continue
        tree = ast.parse(path.read_bytes())
        if name == module:
            tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name in without)]
        digests[name] = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
        for imported in _imports(tree):
            same_package = "." in module and imported.partition(".")[0] == root
            beside = "." not in module and (start.parent / f"{imported}.py").exists()
            if same_package or beside:
                queue.append(imported)
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:16]
