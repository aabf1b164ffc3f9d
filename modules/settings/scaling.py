"""How a training is spread over devices and processes, survives their end, and fits into memory."""

from typing import Literal

from pydantic import Field, model_validator

from stillhouse.modules.settings.section import Section

# Strategies whose replicas are processes of their own, which find each other by TF_CONFIG.
CLUSTER_STRATEGIES = ("multi_worker_mirrored", "parameter_server")


class Strategy(Section):
    """How a training is distributed."""

    name: Literal[
        "auto",
        "one_device",
        "mirrored",
        "central_storage",
        "multi_worker_mirrored",
        "parameter_server",
        "tpu",
    ] = Field(
        "one_device",
        description="The tf.distribute strategy; auto: a TPU, mirrored over several GPUs, or one_device, as there is.",
    )
    devices: int | None = Field(
        None,
        ge=1,
        description="Replicas of mirrored and central_storage: GPUs, or logical CPU devices; default: all GPUs, or "
        "one CPU.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Worker processes of multi_worker_mirrored and parameter_server; default 2. They are started on "
        "this machine, unless TF_CONFIG says that this process belongs to a cluster already.",
    )
    parameter_servers: int | None = Field(
        None, ge=1, le=64, description="Processes that keep the variables of parameter_server; default 1."
    )
    tpu: str | None = Field(None, description="Name or grpc:// address of a TPU; default: the one of this machine.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values):
        of_processes = {
            "multi_worker_mirrored": {"workers": 2},
            "parameter_server": {"workers": 2, "parameter_servers": 1},
        }
        if isinstance(values, dict):
            return of_processes.get(values.get("name"), {}) | values
        return values

    @model_validator(mode="after")
    def _check_use(self):
        if self.name == "one_device" and (self.devices or 1) > 1:
            raise ValueError(f"devices is {self.devices}, but one_device has one; for more, name mirrored")
        uses = {
            "devices": ("one_device", "mirrored", "central_storage"),
            "workers": ("multi_worker_mirrored", "parameter_server"),
            "parameter_servers": ("parameter_server",),
            "tpu": ("tpu",),
        }
        for key, names in uses.items():
            if getattr(self, key) is not None and self.name not in names:
                raise ValueError(f"{key} is of no use with {self.name}; it is for {', '.join(names)}")
        return self


class Checkpoints(Section):
    """What a training leaves on the way, so that it can go on where it was stopped."""

    every_steps: int = Field(500, ge=1, description="Updates between checkpoints: the most that is lost.")
    keep: int = Field(2, ge=1, description="Checkpoints to keep; if the newest is damaged, the one before is taken.")


class Restarts(Section):
    """What happens when a process of a training dies."""

    most: int = Field(3, ge=0, description="Restarts of a training's processes before it is given up.")
    back_off_seconds: float = Field(1.0, ge=0, description="Wait before the first restart; doubled for each one more.")


class Memory(Section):
    """How a training that does not fit into memory is made to fit."""

    micro_batches: int = Field(
        1, ge=1, description="Parts of a batch that pass one after the other; their gradients make one update."
    )
    rematerialise: Literal["none", "auto"] | list[str] = Field(
        "none",
        description="Compute activations again in the backward pass: auto, with the cuts that need the least memory, "
        "or the layers after which to cut.",
    )
    activation_budget_mb: float | None = Field(
        None, gt=0, description="Memory for activations; auto takes the fewest segments that fit."
    )
    swap: Literal["none", "auto"] | list[str] = Field(
        "none",
        description="Let activations wait in the host's memory for the backward pass, where the device is not the host "
        "(GPU): auto, with the cuts of rematerialise: auto, or the layers after which to cut.",
    )

    @model_validator(mode="after")
    def _check_cuts(self):
        if self.activation_budget_mb is not None and self.rematerialise != "auto":
            raise ValueError("memory.activation_budget_mb is of use with memory.rematerialise: auto only")
        for name in ("rematerialise", "swap"):
            if getattr(self, name) == []:
                raise ValueError(f"memory.{name}: name at least one layer, or none")
        if "none" not in (self.rematerialise, self.swap):
            raise ValueError("memory: activations are computed again (rematerialise) or swapped (swap), not both")
        return self


class Parallelism(Section):
    """How a network is cut into stages, which work on different micro-batches at the same time."""

    stages: int = Field(1, ge=1, le=64, description="Stages, each on a device of its own; 1: the network in one piece.")
    replicas: int = Field(
        1, ge=1, le=64, description="Replicas of the stages, which share each batch: data parallelism beside it."
    )
    micro_batches: int | None = Field(
        None,
        ge=1,
        description="Parts of a replica's batch; default: the least from four times the stages that divides it.",
    )
    schedule: Literal["gpipe", "1f1b"] = Field(
        "gpipe",
        description="All forward, then all backward; or 1f1b, which keeps the activations of fewer micro-batches.",
    )
    balance: Literal["time", "memory"] | list[int] = Field(
        "time", description="What the largest stage has least of, as measured; or the numbers of layers of the stages."
    )
    memory_budget_mb: float | None = Field(None, gt=0, description="Memory that a stage may have.")
    rematerialise: bool = Field(False, description="Stages compute their activations again, as GPipe does.")
    processes: bool = Field(
        False, description="Each stage in a process of its own, on this machine or where TF_CONFIG says."
    )
