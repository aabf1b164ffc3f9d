"""Weights on their way from one network to another."""

import os
import tempfile
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from stillhouse.modules import progress
from stillhouse.modules.errors import UserError
from stillhouse.modules.models import saved_models


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies the weights between two networks of one builder, also where `source` has them in shards."""
    weights = source.get_weights()
    if [weight.shape for weight in weights] == [weight.shape for weight in target.get_weights()]:
        target.set_weights(weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(network=source).write(os.path.join(folder, "weights"))
        tf.train.Checkpoint(network=target).read(path).assert_existing_objects_matched()


def pretrained(base_model: str, name: str, build: Callable[[], keras.Model], layers: dict[str, str]) -> keras.Model:
    """Returns a network that starts at the weights of another one, by the names of its layers.

    Weights whose names the other one does not have stay as they are initialised, as those of a new head.

    Args:
      base_model: SavedModel of the other one.
      name: of the training, for what is told.
      build: builds the network.
      layers: {layer: the other one's layer that it starts at}; those that are not named start at that of their own
        name.

    Raises:
      UserError: there is no such layer, no weight is found, or shapes differ.
    """
    found = {variable.name: variable for variable in saved_models.load(base_model).network.variables}
    network = build()
    own = {weight.name.partition("/")[0] for weight in network.weights}
    others = {of.partition("/")[0] for of in found}
    for missing, where in ((set(layers) - own, "network"), (set(layers.values()) - others, "pre-trained one")):
        if missing:
            there = ", ".join(sorted(own if where == "network" else others))
            raise UserError(f"{name}: start.layers: the {where} has no layer {', '.join(missing)}; it has: {there}")
    copied = 0
    for weight in network.weights:
        layer, _, rest = weight.name.partition("/")
        source = found.get(f"{layers.get(layer, layer)}/{rest}")
        if source is None:
            continue
        if source.shape != weight.shape:
            raise UserError(
                f"{name}: start: {weight.name} has the shape {weight.shape}, that of the pre-trained network "
                f"{source.shape}; give both the same hyperparameters"
            )
        weight.assign(source)
        copied += 1
    if not copied:
        raise UserError(
            f"{name}: start: the pre-trained network has no layer of the same name; it has: {', '.join(others)}"
        )
    progress.note(f"{name}: {copied} of {len(network.weights)} weights start at pre-trained ones")
    return network


def last_pushed(
    base_model: str | None, name: str, build: Callable[[], keras.Model], transform_graph: str
) -> keras.Model | None:
    """Returns a network with the weights of the model that was pushed last, if they mean the same in this training.

    They do if the shapes are the same, and all vocabularies: class ids and feature ids are places in those.

    Args:
      base_model: SavedModel of the export; None: not asked for; a path without a model: nothing was pushed yet.
      name: of the training, for what is told.
      build: builds the network.
      transform_graph: folder of the Transform's output.

    Returns:
      The network, or None: then the training starts from scratch, and if it was asked for, why is told.
    """
    if base_model is None:
        return None
    if not tf.io.gfile.exists(os.path.join(base_model, "saved_model.pb")):
        progress.note(f"{name}: starts from scratch; nothing has been pushed yet")
        return None
    changed = _changed_files(
        os.path.join(transform_graph, "transform_fn", "assets"), os.path.join(base_model, "assets")
    )
    if changed:
        progress.note(
            f"{name}: starts from scratch; the vocabulary {', '.join(changed)} has changed since the last push"
        )
        return None
    pushed = saved_models.load(base_model).network.variables
    network = build()
    if [variable.shape for variable in pushed] != [weight.shape for weight in network.weights]:
        progress.note(f"{name}: starts from scratch; the last pushed version has weights of other shapes")
        return None
    network.set_weights([variable.numpy() for variable in pushed])
    progress.note(f"{name}: starts from the last pushed version")
    return network


def _changed_files(here: str, there: str) -> list[str]:
    """Returns the names of the files that differ between two folders."""

    def contents(folder: str) -> dict[str, bytes]:
        names = tf.io.gfile.listdir(folder) if tf.io.gfile.exists(folder) else []
        return {name: tf.io.gfile.GFile(os.path.join(folder, name), "rb").read() for name in names}

    old, new = contents(there), contents(here)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
