import importlib
import sys
from importlib.machinery import PathFinder

import pytest

from stillhouse.modules import code_fingerprint as fingerprints
from stillhouse.modules.code_fingerprint import code_fingerprint
from stillhouse.modules.errors import UserError

TASK = (
    "import helper_of_test\n\ndef preprocessing_fn(inputs):\n    return inputs\n\ndef build_teacher():\n    return 1\n"
)


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text, helper="VALUE = 1\n"):
        (tmp_path / "task_of_test.py").write_text(text)
        (tmp_path / "helper_of_test.py").write_text(helper)
        importlib.invalidate_caches()

    write(TASK)
    return write


def test_comments_and_layout_do_not_count(task):
    before = code_fingerprint("task_of_test")
    task("# a comment\n" + TASK.replace("    return 1", "\n    return (1)  # one"))
    assert code_fingerprint("task_of_test") == before


def test_a_change_of_code_counts(task):
    before = code_fingerprint("task_of_test")
    task(TASK.replace("return 1", "return 2"))
    assert code_fingerprint("task_of_test") != before


def test_a_function_that_does_not_concern_the_caller_can_be_left_out(task):
    before = code_fingerprint("task_of_test", without=("build_teacher",))
    task(TASK.replace("return 1", "return 2"))
    assert code_fingerprint("task_of_test", without=("build_teacher",)) == before
    task(TASK.replace("return inputs", "return None"))
    assert code_fingerprint("task_of_test", without=("build_teacher",)) != before


def test_modules_beside_it_that_it_imports_count(task):
    before = code_fingerprint("task_of_test")
    task(TASK, helper="VALUE = 2\n")
    assert code_fingerprint("task_of_test") != before


def test_modules_of_the_same_package_count():
    assert code_fingerprint("stillhouse.modules.training.launch") != code_fingerprint(
        "stillhouse.modules.training.launch", without=("run_fn",)
    )


def test_a_package_that_is_installed_in_place_counts_though_it_is_not_on_the_path(tmp_path, monkeypatch):
    class Finder:  # as that of setuptools' editable installations
        @staticmethod
        def find_spec(name, path=None, target=None):
            return PathFinder.find_spec(name, [str(tmp_path)]) if name == "package_of_test" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    (tmp_path / "package_of_test").mkdir()
    (tmp_path / "package_of_test" / "__init__.py").write_text("")
    task = tmp_path / "package_of_test" / "task.py"
    task.write_text(TASK)
    before = code_fingerprint("package_of_test.task")
    task.write_text(TASK.replace("return 1", "return 2"))
    assert code_fingerprint("package_of_test.task") != before


def package(folder, **files):
    """Writes modules, given by their names with dots, as packages below `folder`."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    ("task", "changed"),
    [
        ("from .names import UNITS\n", "forest/names.py"),
        ("from . import names\n", "forest/names.py"),
        ("from ..names import UNITS\n", "names.py"),
        ("from columns.names import UNITS\n", "columns/names.py"),
        ("import columns.names\n", "columns/names.py"),
        ("import columns.names\n", "columns/__init__.py"),
        ("from columns import UNITS\n", "columns/__init__.py"),
        ("def build():\n    import columns.names\n", "columns/names.py"),
        ("", "forest/__init__.py"),
    ],
)
def test_everything_of_the_users_that_the_task_imports_counts(tmp_path, monkeypatch, task, changed):
    monkeypatch.syspath_prepend(tmp_path)
    root = "of_user" if ".." in task else ""
    prefix = f"{root}__" if root else ""
    package(
        tmp_path,
        **{f"{prefix}forest__task": task, f"{prefix}forest__names": "UNITS = 1\n", f"{prefix}names": "UNITS = 1\n"},
        columns__names="UNITS = 1\n",
    )
    module = f"{root}.forest.task".strip(".")
    before = code_fingerprint(module)
    (tmp_path / root / changed).write_text("UNITS = 2\n")
    after = code_fingerprint(module)
    assert after != before
    (tmp_path / "columns" / "unused.py").write_text("UNITS = 3\n")
    assert code_fingerprint(module) == after


def test_libraries_do_not_count_and_our_own_modules_do(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, own_task="import json\nimport numpy\n")
    read = []
    monkeypatch.setattr(fingerprints, "_parsed", lambda text, without: read.append(text) or (str(hash(text)), ()))
    code_fingerprint("own_task")
    assert read == [b"import json\nimport numpy\n"]
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, other_task="from stillhouse.modules.tasks import digits\n")
    assert code_fingerprint("other_task") != code_fingerprint("own_task")


def test_a_module_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no_such_module_of_test: no Python module of this name"):
        code_fingerprint("no_such_module_of_test")
    with pytest.raises(UserError, match="stillhouse.modules.nothing: no Python module of this name"):
        code_fingerprint("stillhouse.modules.nothing")


def test_a_file_that_is_no_python_is_named_with_its_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, broken_task="x = 1\ndef :\n")
    with pytest.raises(UserError, match=r"broken_task.py:2: not valid Python"):
        code_fingerprint("broken_task")
