"""The job of a training whose strategy is of several processes."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.modules.cluster.strategies import STAGES
from stillhouse.modules.cluster.supervisor import Job
from stillhouse.modules.training.config import TrainingConfig

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs


def job_of(config: TrainingConfig, fn_args: "FnArgs") -> Job:
    """Returns the processes that train `config` on this machine."""
    run = {
        "train_files": list(fn_args.train_files),
        "eval_files": list(fn_args.eval_files),
        "transform_graph_path": fn_args.transform_graph_path,
        "serving_model_dir": fn_args.serving_model_dir,
        "model_run_dir": fn_args.model_run_dir,
        "base_model": fn_args.base_model,
        "custom_config": asdict(config),
    }
    parallelism = config.parallelism
    stages = parallelism["stages"] * parallelism.get("replicas", 1) if config.cluster_kind == STAGES else None
    return Job(
        name=config.name,
        kind=config.cluster_kind,
        workers=stages or config.strategy["workers"],
        parameter_servers=config.strategy.get("parameter_servers") or 0,
        most_restarts=config.restarts["most"],
        back_off_seconds=config.restarts["back_off_seconds"],
        module="stillhouse.modules.training.member",
        folder=Path(fn_args.model_run_dir, "cluster"),
        run=run,
    )
