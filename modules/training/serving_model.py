"""Exports the SavedModel of a training job."""

from typing import TYPE_CHECKING, Any

import tensorflow_transform as tft
import tf_keras as keras

from stillhouse.modules.distillation.head_per_teacher import CombinedHeads
from stillhouse.modules.models.export import export_network, export_pretrained
from stillhouse.modules.models.heads import HEADS
from stillhouse.modules.training.config import TrainingConfig

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


def write_serving_model(config: TrainingConfig, network: keras.Model, card: dict[str, Any], fn_args: "FnArgs") -> None:
    """Writes the trained network to `fn_args.serving_model_dir`: to be served, or, pre-trained, to start from."""
    path, head = fn_args.serving_model_dir, HEADS[config.head]
    if config.masking:
        export_pretrained(network, path, card, config.hidden_layers)
        return
    if config.distillation and config.heads > 1:
        ensemble = config.distillation.ensemble
        combined = CombinedHeads(head, ensemble.weights, ensemble.combination)
        network = keras.Model(network.inputs, combined(network.output))
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    export_network(network, transform, config.label, path, card, head, config.hidden_layers)
