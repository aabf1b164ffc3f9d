import importlib
import sys
from importlib.machinery import PathFinder

import pytest

from stillhouse.modules.code_fingerprint import code_fingerprint

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
    assert code_fingerprint("stillhouse.modules.training.launch") != ""


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
