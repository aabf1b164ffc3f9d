"""How the pipeline runs on Kubeflow Pipelines."""

from pydantic import Field

from stillhouse.modules.settings.section import Section


class Volume(Section):
    """A volume that every container sees."""

    claim: str = Field(description="Name of the PersistentVolumeClaim.")
    mount: str = Field(pattern="^/", description="Where it is mounted.")


class Resources(Section):
    """What a container gets; 0 leaves it to the cluster."""

    cpu_request: float = Field(0.0, ge=0, description="Cores that are kept free for it.")
    cpu_limit: float = Field(0.0, ge=0, description="Cores that it may use.")
    memory_request_gb: float = Field(0.0, ge=0, description="Gigabytes that are kept free for it.")
    memory_limit_gb: float = Field(0.0, ge=0, description="Gigabytes that it may use.")
    gpus: int = Field(0, ge=0, description="GPUs.")
    gpu_type: str = Field("nvidia.com/gpu", description="Kind of the GPUs, as the cluster's resource is called.")
    node_selector: dict[str, str] = Field({}, description="Labels of the nodes that it may run on.")


class Retries(Section):
    """What happens when a container fails."""

    most: int = Field(2, ge=0, description="Times that it is started again.")
    back_off_seconds: float = Field(30.0, gt=0, description="Wait before the first time.")
    factor: float = Field(2.0, ge=1, description="By which the wait grows.")
    most_back_off_seconds: float = Field(600.0, gt=0, description="Longest wait.")


class Kubeflow(Section):
    """How the pipeline runs on Kubeflow Pipelines."""

    pipeline_root: str = Field(
        "minio://mlpipeline/v2/artifacts", description="Where artifacts are kept: minio://, s3:// or gs://."
    )
    cache: bool = Field(True, description="Take what has not changed from earlier runs.")
    retries: Retries = Field(Retries(), description="What happens when a container fails.")
    resources: dict[str, Resources] = Field(
        {}, description="By node (Teacher-1), kind of node (Teacher, Evaluator), or default."
    )
    volumes: list[Volume] = Field([], description="Volumes that every container sees.")
    checkpoints: str | None = Field(
        None, description="Folder for checkpoints, on a volume or gs://, so that a retry goes on where it stopped."
    )
