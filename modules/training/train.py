"""A training job, for teachers, baseline and student alike: plan, build, run, model card."""

from typing import TYPE_CHECKING, Any

import psutil
import tf_keras as keras

from stillhouse.modules.cluster.spec import ClusterSpec
from stillhouse.modules.peak_memory import forget_peak
from stillhouse.modules.training.build import build_network, build_training
from stillhouse.modules.training.card import card_of
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.keras_state import random_generators_in_variables, state_of_training
from stillhouse.modules.training.plan import plan_training
from stillhouse.modules.training.run import run_training
from stillhouse.modules.training.validation import copy_trained_weights

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


def train(
    config: TrainingConfig, fn_args: "FnArgs", cluster: ClusterSpec | None = None
) -> tuple[keras.Model, dict[str, Any]]:
    """Trains the network of `config` and returns it, outside of any strategy, with its model card.

    An interrupted training job resumes from its last checkpoint.

    Args:
      config: the training job.
      fn_args: files of the examples, the Transform's output, a model to start from, the folder of event files.
      cluster: the processes that train together, and which of them this one is; None: it is alone.

    Raises:
      UserError: task module, labels, teachers, soft targets or strategy do not fit together.
    """
    forget_peak()
    megabytes_before = psutil.Process().memory_info().rss / 1e6
    with state_of_training(config.seed):
        plan = plan_training(config, fn_args, cluster)
        built = build_training(plan)
        outcome = run_training(plan, built)
        # A separate network outside the strategy's scope: the export has no trace of how it was trained,
        # nor the generators of its dropout.
        with random_generators_in_variables(False):
            network = build_network(plan)
        if outcome.validation and config.keep == "best":
            network.set_weights(outcome.validation.best_weights())
        else:
            copy_trained_weights(built, network)
        return network, card_of(plan, built, outcome.history, network, megabytes_before)
