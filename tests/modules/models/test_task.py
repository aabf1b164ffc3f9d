import sys

import pytest
import tensorflow as tf

from stillhouse.modules.errors import UserError
from stillhouse.modules.models.task import build_model, load_task

FUNCTIONS = "def preprocessing_fn(inputs): pass\ndef build_teacher(): pass\ndef build_student(**h): return MODEL(h)\n"
KERAS = "import tf_keras as keras\n"


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """Writes a task module and returns its import path."""
    name = "task_of_" + request.node.name.partition("[")[0]
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.modules.pop(name, None)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(UserError, match="no module 'nowhere.at_all'"):
        load_task("nowhere.at_all")


def test_a_module_that_raises_on_import_is_named_with_the_line(module):
    name = module("\n\nraise ValueError('boom')\n")
    with pytest.raises(UserError, match=r"raised ValueError: boom \(at .*\.py:3\)"):
        load_task(name)


def test_a_module_that_imports_what_is_missing_is_not_called_missing_itself(module):
    name = module("import not_installed_anywhere\n")
    with pytest.raises(UserError, match=r"importing .* failed: No module named 'not_installed_anywhere'"):
        load_task(name)


def test_missing_functions_are_named(module):
    name = module("def preprocessing_fn(inputs): pass\n")
    with pytest.raises(UserError, match="lacks the function.s. build_teacher, build_student"):
        load_task(name)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("3 or (lambda h: 0)", "'int' object is not callable"),
        ("lambda h: 3", "found builtins.int; expected a tf_keras model"),
        ("lambda h: keras.Sequential([keras.layers.Dense(2)])", "the model has no defined inputs"),
        (
            "lambda h: keras.Sequential([keras.Input([4], name='y'), keras.layers.Dense(2)])",
            "model input.s. y; expected features that preprocessing_fn returns: x",
        ),
        (
            "lambda h: keras.Sequential([keras.Input([4, 4], name='x'), keras.layers.Dense(2)])",
            r"found the output shape \(None, 4, 2\); expected \[batch, classes\]",
        ),
        ("lambda h: h['units']", r"raised KeyError: 'units' \(at .*\.py:"),
    ],
)
def test_what_is_no_classifier_is_refused(module, model, message):
    name = module(KERAS + FUNCTIONS.replace("MODEL(h)", f"({model})(h)"))
    with pytest.raises(UserError, match=message):
        build_model(name, "build_student", {}, {"x": tf.io.FixedLenFeature([4], tf.float32)})


def test_sparse_features_are_refused_with_the_remedy(module):
    text = "(lambda h: keras.Sequential([keras.Input([4], name='x'), keras.layers.Dense(2)]))(h)"
    name = module(KERAS + FUNCTIONS.replace("MODEL(h)", text))
    with pytest.raises(UserError, match="found x sparse or ragged; expected dense"):
        build_model(name, "build_student", {}, {"x": tf.io.VarLenFeature(tf.float32)})


def test_layers_without_a_name_have_the_same_one_in_every_build(module):
    """A student's second stage starts from its first by the layers' names; after another build they were others."""
    name = module(
        KERAS + "def preprocessing_fn(inputs): pass\n"
        "def build_teacher(): pass\n"
        "def build_student():\n"
        "    inputs = keras.Input([3])\n"
        "    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(4)(inputs)))\n"
    )
    builds = [[layer.name for layer in build_model(name, "build_student", {}).layers[1:]] for _ in range(2)]
    assert builds[0] == builds[1]
