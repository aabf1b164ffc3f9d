"""Initialises the weights of one network from another."""

import os
import tempfile
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.errors import UserError
from stillhouse.modules.models import saved_models


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights between two networks of one builder; those of `source` may be sharded."""
    weights = source.get_weights()
    if [weight.shape for weight in weights] == [weight.shape for weight in target.get_weights()]:
        target.set_weights(weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(network=source).write(os.path.join(folder, "weights"))
        tf.train.Checkpoint(network=target).read(path).assert_existing_objects_matched()


def pretrained(base_model: str, name: str, build: Callable[[], keras.Model], layers: dict[str, str]) -> keras.Model:
    """Returns a network initialised from a pre-trained one, by layer name.

    Weights without a counterpart, such as those of a new head, keep their random initial values.

    Args:
      base_model: SavedModel of the pre-trained network.
      name: the model's name in messages.
      build: builds the network.
      layers: {layer: pre-trained layer to start from}; other layers start from the layer of the same name.

    Raises:
      UserError: a layer does not exist, no weight matches, or shapes differ.
    """
    pretrained_variables = {variable.name: variable for variable in saved_models.load(base_model).network.variables}
    network = build()
    own_layers = {weight.name.partition("/")[0] for weight in network.weights}
    pretrained_layers = {variable_name.partition("/")[0] for variable_name in pretrained_variables}
    for missing, existing, owner in (
        (set(layers) - own_layers, own_layers, "this network"),
        (set(layers.values()) - pretrained_layers, pretrained_layers, "the pre-trained network"),
    ):
        if missing:
            raise UserError(
                f"{name}: start.layers: found {', '.join(missing)}; expected layers of {owner}: "
                f"{', '.join(sorted(existing))}"
            )
    copied = 0
    for weight in network.weights:
        layer, _, weight_name = weight.name.partition("/")
        source = pretrained_variables.get(f"{layers.get(layer, layer)}/{weight_name}")
        if source is None:
            continue
        if source.shape != weight.shape:
            raise UserError(
                f"{name}: start: {weight.name}: found shape {weight.shape}; expected {source.shape}, as in the "
                "pre-trained network; set the same hyperparameters"
            )
        weight.assign(source)
        copied += 1
    if not copied:
        raise UserError(
            f"{name}: start: no layer has the name of a pre-trained one; the pre-trained network has: "
            f"{', '.join(pretrained_layers)}"
        )
    progress.note(f"{name}: initialised {copied} of {len(network.weights)} weights from pre-training")
    return network


def last_pushed(
    base_model: str | None, name: str, build: Callable[[], keras.Model], transform_graph: str
) -> keras.Model | None:
    """Returns a network with the weights of the last pushed model, if they mean the same in this training job.

    They do if the shapes and all vocabularies are the same: class ids and feature ids are indices into vocabularies.

    Args:
      base_model: SavedModel of the pushed model; None: no warm start requested; a path without a model: nothing was
        pushed yet.
      name: the model's name in messages.
      build: builds the network.
      transform_graph: folder of the Transform's output.

    Returns:
      The network, or None: start from scratch; a requested warm start then reports the reason.
    """
    if base_model is None:
        return None
    if not tf.io.gfile.exists(os.path.join(base_model, "saved_model.pb")):
        progress.note(f"{name}: starting from scratch; nothing has been pushed yet")
        return None
    changed = _changed_files(
        os.path.join(transform_graph, "transform_fn", "assets"), os.path.join(base_model, "assets")
    )
    if changed:
        progress.note(
            f"{name}: starting from scratch; the vocabulary {', '.join(changed)} has changed since the last push"
        )
        return None
    pushed = saved_models.load(base_model).network.variables
    network = build()
    if [variable.shape for variable in pushed] != [weight.shape for weight in network.weights]:
        progress.note(f"{name}: starting from scratch; the last pushed version has other weight shapes")
        return None
    network.set_weights([variable.numpy() for variable in pushed])
    progress.note(f"{name}: starting from the last pushed version")
    return network


def _changed_files(new_folder: str, old_folder: str) -> list[str]:
    """Returns the names of the files that differ between two folders."""

    def contents(folder: str) -> dict[str, bytes]:
        names = tf.io.gfile.listdir(folder) if tf.io.gfile.exists(folder) else []
        return {name: tf.io.gfile.GFile(os.path.join(folder, name), "rb").read() for name in names}

    old, new = contents(old_folder), contents(new_folder)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
