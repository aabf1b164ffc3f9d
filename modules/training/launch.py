"""The run_fn of every Trainer: trains in this process, starts a cluster that trains, or joins one."""

import os
from typing import TYPE_CHECKING

from stillhouse.modules import progress
from stillhouse.modules.atomic import refuse_links, refuse_links_below, remove
from stillhouse.modules.cluster import supervisor
from stillhouse.modules.cluster.spec import STAGES, cluster_from
from stillhouse.modules.models.card import read_card, write_card
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.data import decide_cache
from stillhouse.modules.training.job import job_of
from stillhouse.modules.training.join import join
from stillhouse.modules.training.report import listed
from stillhouse.modules.training.serving_model import write_serving_model
from stillhouse.modules.training.train import train

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


def run_fn(fn_args: "FnArgs") -> None:
    """Trains the model that `fn_args.custom_config` describes, the JSON of a TrainingConfig, and exports it.

    A training of several processes runs as such: where TF_CONFIG is in the environment, this process joins the others,
    else all of them are started on this machine. This is the one place that reads TF_CONFIG.

    Raises:
      UserError: as `train` does.
    """
    config = TrainingConfig.model_validate(fn_args.custom_config)
    if config.checkpoint_folder:
        refuse_links(config.checkpoint_folder, below=os.path.dirname(config.checkpoint_folder))
        refuse_links_below(config.checkpoint_folder)
    if config.cluster_kind is None:
        network, card = train(config, fn_args)
        write_serving_model(config, network, card, fn_args)
        forget_checkpoints(config)
        return
    cluster = cluster_from(os.environ, workers_are_stages=config.cluster_kind == STAGES)
    if cluster:
        join(config, fn_args, cluster)
    else:
        _supervise(config, fn_args)


def _supervise(config: TrainingConfig, fn_args: "FnArgs") -> None:
    """Starts the processes of the training job on this machine and supervises them."""
    config = decide_cache(config, fn_args)  # once for all of them
    course = supervisor.run_job(job_of(config, fn_args))
    card = read_card(fn_args.serving_model_dir)
    card["restarts"], card["memory"]["peak_mb"] = course.restarts, course.peaks_mb
    write_card(fn_args.serving_model_dir, card)
    progress.note(f"{config.name}: peak memory by process, MB: {listed(course.peaks_mb)}")
    forget_checkpoints(config)  # only now: any of the processes may have written to the last


def forget_checkpoints(config: TrainingConfig) -> None:
    """Removes the checkpoints of a completed training job."""
    if config.checkpoint_folder:
        remove(config.checkpoint_folder)
