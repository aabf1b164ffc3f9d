"""The user's task module: preprocessing_fn, build_teacher, build_student."""

import importlib
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules.errors import UserError


class Task(Protocol):
    """What a task module has; a module with these functions is one, nothing is to be inherited.

    Two functions more are optional:

    `augment(features, seed)` returns a batch of training inputs, changed at random. `features` is {name: tensor
    [batch, ...]} as preprocessing_fn returns them, without the label; `seed` is int32 [2], another for each batch.
    Training, or SoftTargets for cached views, calls it if `augment: true` stands in the settings.

    `build_language_model(**hyperparameters)` returns the network of `pretraining`: an uncompiled tf_keras model from
    sub-words' ids to logits [batch, positions, vocabulary].
    """

    preprocessing_fn: Callable[..., dict[str, Any]]
    """Called as `preprocessing_fn(inputs)`, or `preprocessing_fn(inputs, custom_config)` if it has that argument.

    `inputs` are the raw columns, {name: tensor or sparse tensor}. It returns dense features and, under the label
    column's own name, the label: an int64 class id [batch] also where the raw column is a string, int64 [batch, labels]
    of 0 and 1 for several labels, float32 [batch] for a number. tf.Transform calls it: only TensorFlow and tft
    operations.
    `custom_config["preprocessing"]` is the settings' section of that name.
    """

    build_teacher: Callable[..., keras.Model]
    """Called as `build_teacher(**hyperparameters)` with those of the teacher in the settings.

    It returns an uncompiled tf_keras model with defined inputs, named like features, and one output of logits
    [batch, classes] (or [batch, 1] for two classes or a number), without softmax or sigmoid.
    """

    build_student: Callable[..., keras.Model]
    """Called as `build_student(**hyperparameters)`: like build_teacher's, small. The baseline is this network too."""


FUNCTIONS = tuple(Task.__annotations__)


def where_raised(error: BaseException) -> str:
    """Returns "file:line" of the innermost frame that raised `error`, for messages about users' code."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown place"


def load_task(path: str) -> ModuleType:
    """Imports the task module `path` and checks that it has its three functions.

    Raises:
      UserError: the module does not exist, raises on import, or lacks a function.
    """
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise UserError(
                f"task: no module {path!r} beside the settings file, in the working directory or among the installed "
                "packages"
            ) from error
        raise UserError(f"task: importing {path!r} failed: {error} (at {where_raised(error)})") from error
    except Exception as error:  # a user's module may raise anything
        kind = type(error).__name__
        raise UserError(f"task: importing {path!r} raised {kind}: {error} (at {where_raised(error)})") from error
    missing = [name for name in FUNCTIONS if not callable(getattr(module, name, None))]
    if missing:
        raise UserError(
            f"task: module {path!r} ({module.__file__}) lacks the function(s) {', '.join(missing)}; add them"
        )
    return module


def find_augment(path: str) -> Callable:
    """Returns the task's function augment(features, seed), which augments a batch of training inputs.

    Raises:
      UserError: the task module has no such function.
    """
    augment = getattr(load_task(path), "augment", None)
    if not callable(augment):
        raise UserError(
            f"augment: the task module {path!r} has no function augment(features, seed) -> features; add it or remove "
            "augment from the settings"
        )
    return augment


def build_model(
    task: str, builder: str, hyperparameters: dict, features: dict | None = None, masked: bool = False
) -> keras.Model:
    """Calls the task's `builder` and returns its model, checked: [batch, outputs] of logits from `features`.

    Args:
      task: import path of the task module.
      builder: "build_teacher", "build_student", or another function of the task module.
      hyperparameters: keyword arguments of the builder.
      features: parsing spec of the transformed features (without the label); None: unknown, inputs are not checked.
      masked: whether the model is a masked language model, with logits [batch, positions, vocabulary].

    Raises:
      UserError: the builder raises, returns no tf_keras model, or a model with other inputs or a wrong output shape.
    """
    name = f"{task}.{builder}"
    build = getattr(load_task(task), builder, None)
    if not callable(build):
        raise UserError(f"builder: the task module {task!r} has no function {builder!r}; add it or change builder")
    # Layers without a name get the same one in every build; hints, and a start from another network, go by names.
    keras.backend.reset_uids()
    try:
        model = build(**hyperparameters)
    except UserError:
        raise
    except Exception as error:  # as above
        kind = type(error).__name__
        raise UserError(f"{name}(**{hyperparameters}) raised {kind}: {error} (at {where_raised(error)})") from error
    if not isinstance(model, keras.Model):
        hint = "; build it with `import tf_keras as keras`" if type(model).__module__.startswith("keras") else ""
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise UserError(f"{name}: found {kind}; expected a tf_keras model{hint}")
    if not model.inputs:
        raise UserError(f"{name}: the model has no defined inputs; use the functional API or give Sequential an Input")
    rank, expected_shape = (3, "[batch, positions, vocabulary]") if masked else (2, "[batch, classes]")
    if len(model.outputs) != 1 or len(model.output_shape) != rank or model.output_shape[-1] is None:
        raise UserError(f"{name}: found the output shape {model.output_shape}; expected {expected_shape}")
    _check_gives_logits(name, model)
    if features is not None:
        _check_inputs(name, model, features)
    return model


def _check_gives_logits(name: str, model: keras.Model) -> None:
    activation = getattr(model.layers[-1], "activation", None)
    if activation in (keras.activations.softmax, keras.activations.sigmoid) or isinstance(
        model.layers[-1], keras.layers.Softmax
    ):
        kind = getattr(activation, "__name__", "softmax")
        raise UserError(f"{name}: found {kind} in the last layer; expected logits; remove the {kind}")


def _check_inputs(name: str, model: keras.Model, features: dict) -> None:
    unknown = sorted(set(model.input_names) - set(features))
    if unknown:
        raise UserError(
            f"{name}: found the model input(s) {', '.join(unknown)}; expected features that preprocessing_fn returns: "
            f"{', '.join(sorted(features))}"
        )
    sparse = sorted(key for key in model.input_names if not isinstance(features[key], tf.io.FixedLenFeature))
    if sparse:
        raise UserError(
            f"task: preprocessing_fn: found {', '.join(sparse)} sparse or ragged; expected dense features; use "
            "tf.sparse.to_dense with a default value and reshape to a fixed size"
        )
