"""Fingerprints of code, so that TFX's cache sees when code changes.

TFX caches by inputs and execution properties. A function that is named by its import path is the same property
whatever it does, so its fingerprint goes along as a property of its own.

A fingerprint covers a module and all that it imports of the same project: for stillhouse's own modules those of
stillhouse, for a user's module all modules that are neither Python's nor installed libraries, the packages that hold
them (whose __init__ runs too), and stillhouse's own where the user's code imports them. Modules are read, not imported.
"""

import ast
import functools
import hashlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path

from stillhouse.modules.errors import UserError

OWN_PACKAGE = __name__.partition(".")[0]
TEMPLATES = "*.jinja"  # read by the modules beside them
# Folders of installed packages, whatever environment they belong to; Debian has names of its own.
INSTALLED = {"site-packages", "dist-packages"}


def code_fingerprint(module: str, without: tuple[str, ...] = ()) -> str:
    """Returns a hash of what a module and the modules of its project that it imports do.

    Comments and layout do not count.

    Args:
      module: import path.
      without: top-level functions of the module itself to leave out, because they do not concern the caller.

    Raises:
      UserError: there is no such module, or one of the project's files is no valid Python.
    """
    root = module.partition(".")[0]
    counts = functools.cache(functools.partial(_counts, root=root))
    digests: dict[str, str] = {}
    seen = {module}
    queue = [module]
    while queue:
        name = queue.pop()
        spec = _spec(name)
        source = _source(spec)
        if spec is None or source is None:
            if name == module:
                raise UserError(
                    f"{module}: no Python module of this name; it is looked for beside the settings file, in the "
                    "working directory and among the installed packages"
                )
            continue
        try:
            digests[name], imported = _parsed(source.read_bytes(), without if name == module else ())
        except SyntaxError as error:
            raise UserError(f"{source}:{error.lineno}: not valid Python: {error.msg}") from error
        if root == OWN_PACKAGE:
            for template in sorted(source.parent.glob(TEMPLATES)):
                digests[f"{name}/{template.name}"] = hashlib.sha256(template.read_bytes()).hexdigest()
        package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
        names = _parents(name)
        for statement in imported:
            names += _modules(statement, package)
        for dependency in names:
            if dependency not in seen and counts(dependency.partition(".")[0]):
                queue.append(dependency)
            seen.add(dependency)
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:16]


def _spec(module: str) -> ModuleSpec | None:
    """Returns where a module is. Unlike importlib.util.find_spec, it imports no packages on the way."""
    names = module.split(".")
    # Python's own finders know the packages of an editable installation; ours has the rooms below its top one.
    found_by_python = 2 if names[0] == OWN_PACKAGE and len(names) > 1 else 1
    try:
        spec = find_spec(".".join(names[:found_by_python]))
    except (ImportError, ValueError):  # ValueError: a module that runs as a script has no spec
        return None
    for depth in range(found_by_python + 1, len(names) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(names[:depth]), spec.submodule_search_locations)
    return spec


def _source(spec: ModuleSpec | None) -> Path | None:
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _counts(package: str, root: str) -> bool:
    """Returns whether a top-level package is of the same project as the one called `root`."""
    if package in (root, OWN_PACKAGE):
        return True
    if package in sys.stdlib_module_names or root == OWN_PACKAGE:
        return False
    spec = _spec(package)
    if spec is None:
        return False
    locations = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(not INSTALLED & set(Path(location).parts) for location in locations)


def _parents(module: str) -> list[str]:
    names = module.split(".")
    return [".".join(names[:depth]) for depth in range(1, len(names))]


# Of an import statement: dots before the name, the name, and the names that are imported from it.
Import = tuple[int, str, tuple[str, ...]]


@functools.lru_cache(maxsize=4096)
def _parsed(text: bytes, without: tuple[str, ...]) -> tuple[str, tuple[Import, ...]]:
    """Returns the digest of a module's syntax tree, and its imports."""
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name in without)]
    imported: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imported)


def _modules(statement: Import, package: str) -> list[str]:
    """Returns the modules that an import statement in a module of `package` may import."""
    level, base, names = statement
    if level:
        try:
            base = resolve_name("." * level + base, package)
        except ImportError:  # beyond the top: the import fails when it runs
            return []
    return [*_parents(base), base, *(f"{base}.{name}" for name in names if name != "*")]
