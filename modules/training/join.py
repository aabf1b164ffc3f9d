"""What a process of a cluster does: it serves a chief, or trains with the others."""

from typing import TYPE_CHECKING

from stillhouse.modules.cluster import members
from stillhouse.modules.cluster.spec import STAGES, ClusterSpec, is_chief
from stillhouse.modules.training.config import TrainingConfig
from stillhouse.modules.training.serving_model import write_serving_model
from stillhouse.modules.training.train import train

if TYPE_CHECKING:  # TFX takes ten seconds to import, and the processes of a cluster do without it
    from tfx.components.trainer.fn_args_utils import FnArgs

LED_BY_A_CHIEF = ("parameter_server", STAGES)  # the other processes do what it asks


def join(config: TrainingConfig, fn_args: "FnArgs", cluster: ClusterSpec) -> None:
    """Takes part in a training job of several processes; the chief writes the model.

    A process that serves a chief does not return; it is ended from outside.

    Raises:
      UserError: as `train` does.
      MachineError: another program listens on this process's port.
    """
    members.check_port(cluster)
    members.announce(fn_args.model_run_dir, cluster)
    if config.cluster_kind in LED_BY_A_CHIEF and cluster.kind != "chief":
        members.serve(cluster)
        return
    network, card = train(config, fn_args, cluster)
    if is_chief(cluster):
        write_serving_model(config, network, card, fn_args)
