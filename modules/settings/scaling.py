"""Settings of distribution, checkpoints, restarts, memory and pipeline stages."""

from typing import Literal

from pydantic import Field, model_validator

from stillhouse.modules.settings.section import Section

# Strategies whose replicas are processes of their own, which find each other by TF_CONFIG.
CLUSTER_STRATEGIES = ("multi_worker_mirrored", "parameter_server")


class Strategy(Section):
    """Distribution of a training job over devices and processes."""

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
        description="tf.distribute strategy; auto: a TPU, else mirrored over several GPUs, else one_device.",
    )
    devices: int | None = Field(
        None,
        ge=1,
        description="Number of replicas of mirrored and central_storage: GPUs, or logical CPU devices; null: all GPUs, "
        "or one CPU.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Number of worker processes of multi_worker_mirrored and parameter_server; null: 2. They start "
        "on this machine, unless TF_CONFIG makes this process part of a cluster.",
    )
    parameter_servers: int | None = Field(
        None, ge=1, le=64, description="Number of processes that hold the variables of parameter_server; null: 1."
    )
    tpu: str | None = Field(None, description="Name or grpc:// address of a TPU; null: this machine's.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values):
        of_processes = {
            "multi_worker_mirrored": {"workers": 2},
            "parameter_server": {"workers": 2, "parameter_servers": 1},
        }
        if isinstance(values, dict):
            return of_processes.get(values.get("name", ""), {}) | values
        return values

    @model_validator(mode="after")
    def _check_use(self):
        if self.name == "one_device" and (self.devices or 1) > 1:
            raise ValueError(f"devices: found {self.devices}; expected 1 with one_device; for more set name: mirrored")
        uses = {
            "devices": ("one_device", "mirrored", "central_storage"),
            "workers": ("multi_worker_mirrored", "parameter_server"),
            "parameter_servers": ("parameter_server",),
            "tpu": ("tpu",),
        }
        for key, names in uses.items():
            if getattr(self, key) is not None and self.name not in names:
                raise ValueError(f"{key}: not valid with {self.name}; remove it (valid with {', '.join(names)})")
        return self


class Checkpoints(Section):
    """Checkpoints from which an interrupted training job resumes."""

    every_steps: int = Field(500, ge=1, description="Updates between checkpoints, the maximum that is lost.")
    keep: int = Field(
        2, ge=1, description="Number of checkpoints to keep; if the newest is corrupt, the previous one is used."
    )


class Restarts(Section):
    """Restarts of a training job's process that dies or hangs."""

    most: int = Field(3, ge=0, description="Maximum number of restarts of a training job's processes.")
    back_off_seconds: float = Field(
        1.0, ge=0, description="Seconds before the first restart; doubled for each further one."
    )
    heartbeat_seconds: float = Field(
        60.0,
        ge=5,
        description="Seconds without a sign of life after which a process of this machine's cluster is killed and "
        "counts as dead.",
    )


class Memory(Section):
    """Ways to reduce the memory of training."""

    micro_batches: int = Field(
        1,
        ge=1,
        description="Number of parts of a batch that are computed in sequence; their gradients make one update.",
    )
    rematerialise: Literal["none", "auto"] | list[str] = Field(
        "none",
        description="Rematerialise activations in the backward pass (activation checkpointing); auto: at the cuts that "
        "need the least memory; a list: after these layers.",
    )
    activation_budget_mb: float | None = Field(
        None,
        gt=0,
        description="Megabytes for activations; rematerialise: auto takes the fewest segments that fit; null: least "
        "memory.",
    )
    swap: Literal["none", "auto"] | list[str] = Field(
        "none",
        description="Offload activations to host memory until the backward pass; requires a GPU; auto: at the cuts of "
        "rematerialise: auto; a list: after these layers.",
    )

    @model_validator(mode="after")
    def _check_cuts(self):
        if self.activation_budget_mb is not None and self.rematerialise != "auto":
            raise ValueError("activation_budget_mb: only valid with rematerialise: auto; set that or remove it")
        for name in ("rematerialise", "swap"):
            if getattr(self, name) == []:
                raise ValueError(f"{name}: found []; expected at least one layer, or none")
        if "none" not in (self.rematerialise, self.swap):
            raise ValueError("rematerialise, swap: exclusive; set one of them to none")
        return self


class Parallelism(Section):
    """Pipeline parallelism: stages of a network that compute different micro-batches at the same time."""

    stages: int = Field(
        1, ge=1, le=64, description="Number of stages, each on its own device; 1: no pipeline parallelism."
    )
    replicas: int = Field(
        1, ge=1, le=64, description="Number of replicas of all stages, which share each batch (data parallelism)."
    )
    micro_batches: int | None = Field(
        None,
        ge=1,
        description="Number of parts of a replica's batch; null: its smallest divisor of at least four times stages.",
    )
    schedule: Literal["gpipe", "1f1b"] = Field(
        "gpipe",
        description="Order of passes; gpipe: all forward, then all backward; 1f1b: alternating, with fewer "
        "micro-batches' activations in memory.",
    )
    balance: Literal["time", "memory"] | list[int] = Field(
        "time",
        description="What to minimise in the largest stage, as measured; a list: the number of layers per stage.",
    )
    memory_budget_mb: float | None = Field(None, gt=0, description="Maximum megabytes of a stage; null: no limit.")
    rematerialise: bool = Field(
        False, description="Rematerialise the activations of a stage in the backward pass, as GPipe does."
    )
    processes: bool = Field(
        False, description="Run each stage in its own process, on this machine or in the cluster of TF_CONFIG."
    )
