"""The job file of a training job with several processes."""

from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.modules.cluster.spec import STAGES
from stillhouse.modules.cluster.supervisor import Job
from stillhouse.modules.training.config import TrainingConfig

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


def job_of(config: TrainingConfig, fn_args: "FnArgs") -> Job:
    """Returns the processes that train `config` on this machine."""
    arguments = {
        "train_files": list(fn_args.train_files),
        "eval_files": list(fn_args.eval_files),
        "transform_graph_path": fn_args.transform_graph_path,
        "serving_model_dir": fn_args.serving_model_dir,
        "model_run_dir": fn_args.model_run_dir,
        "base_model": fn_args.base_model,
        "custom_config": config.model_dump(mode="json"),
    }
    parallelism, strategy = config.parallelism, config.strategy
    kind = config.cluster_kind
    assert kind, "only a training job of several processes is made of them"
    return Job(
        name=config.name,
        kind=kind,
        workers=parallelism.stages * parallelism.replicas if kind == STAGES else strategy.workers or 1,
        parameter_servers=strategy.parameter_servers or 0,
        most_restarts=config.restarts.most,
        back_off_seconds=config.restarts.back_off_seconds,
        heartbeat_seconds=config.restarts.heartbeat_seconds,
        module="stillhouse.modules.training.member",
        folder=Path(fn_args.model_run_dir, "cluster"),
        run=arguments,
    )
