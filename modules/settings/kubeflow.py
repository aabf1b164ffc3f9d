"""How the pipeline runs on Kubeflow Pipelines."""

from pydantic import Field

from stillhouse.modules.settings.section import Section


class Volume(Section):
    """A volume mounted in every container."""

    claim: str = Field(description="Name of the PersistentVolumeClaim.")
    mount: str = Field(pattern="^/", description="Path of the mount in the containers.")


class Resources(Section):
    """Resources of a container; 0: the cluster's default."""

    cpu_request: float = Field(0.0, ge=0, description="Number of cores reserved.")
    cpu_limit: float = Field(0.0, ge=0, description="Maximum number of cores.")
    memory_request_gb: float = Field(0.0, ge=0, description="Gigabytes of memory reserved.")
    memory_limit_gb: float = Field(0.0, ge=0, description="Maximum gigabytes of memory.")
    gpus: int = Field(0, ge=0, description="Number of GPUs.")
    gpu_type: str = Field("nvidia.com/gpu", description="Name of the cluster's GPU resource.")
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have to run the container.")


class Retries(Section):
    """Retries of a failed container."""

    most: int = Field(2, ge=0, description="Maximum number of retries.")
    back_off_seconds: float = Field(30.0, gt=0, description="Seconds before the first retry.")
    factor: float = Field(2.0, ge=1, description="Factor by which the wait grows with each retry.")
    most_back_off_seconds: float = Field(600.0, gt=0, description="Maximum seconds between retries.")


class Kubeflow(Section):
    """How the pipeline runs on Kubeflow Pipelines."""

    pipeline_root: str = Field(
        "minio://mlpipeline/v2/artifacts", description="Location of the artifacts: minio://, s3:// or gs://."
    )
    cache: bool = Field(True, description="Reuse unchanged results of earlier runs.")
    retries: Retries = Field(Retries(), description="Retries of a failed container.")
    resources: dict[str, Resources] = Field(
        {}, description="Resources by node (Teacher-1), kind of node (Teacher, Evaluator), or default."
    )
    volumes: list[Volume] = Field([], description="Volumes mounted in every container.")
    checkpoints: str | None = Field(
        None, description="Folder of checkpoints on a volume or gs://, from which a retry resumes; null: none."
    )
