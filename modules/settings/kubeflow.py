"""How the pipeline runs on Kubeflow Pipelines.

The forms of names are those that Kubernetes validates when it makes a pod: DNS subdomains (RFC 1123) for objects,
qualified names for labels and resources (https://kubernetes.io/docs/concepts/overview/working-with-objects/names and
.../labels).
"""

import posixpath
import re
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from stillhouse.modules.settings.section import Section

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"({_DNS_SUBDOMAIN}/)?{_NAME}")
_LABEL_VALUE = re.compile(rf"({_NAME})?")
LAUNCHER_FOLDERS = ("/minio", "/s3", "/gcs", "/oci", "/kfp-launcher", "/kfp-workspace", "/tmp/kfp")

ObjectName = Annotated[str, StringConstraints(pattern=rf"^{_DNS_SUBDOMAIN}$", max_length=253)]
EnvironmentVariable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
SecretKey = Annotated[str, StringConstraints(pattern=r"^[-._A-Za-z0-9]+$", max_length=253)]


class Volume(Section):
    """A volume mounted in every container."""

    claim: ObjectName = Field(
        description="Name of the PersistentVolumeClaim: lower-case letters, digits, hyphens and dots."
    )
    mount: str = Field(pattern=r"^/[^:]*$", description="Absolute path of the mount in the containers, without colons.")

    @field_validator("mount")
    @classmethod
    def _leaves_the_container_whole(cls, mount: str) -> str:
        path = posixpath.normpath(mount)
        if path.strip("/") == "":
            raise ValueError("a folder below /, which holds the container itself")
        for folder in LAUNCHER_FOLDERS:
            if posixpath.commonpath([path, folder]) == folder:
                raise ValueError(f"a folder outside {folder}, where Kubeflow's launcher keeps its files")
        return mount


class Resources(Section):
    """Resources of a container; 0: the cluster's default."""

    cpu_request: float = Field(0.0, ge=0, description="Number of cores reserved.")
    cpu_limit: float = Field(0.0, ge=0, description="Maximum number of cores.")
    memory_request_gb: float = Field(0.0, ge=0, description="Gigabytes of memory reserved.")
    memory_limit_gb: float = Field(0.0, ge=0, description="Maximum gigabytes of memory.")
    gpus: int = Field(0, ge=0, description="Number of GPUs.")
    gpu_type: str = Field(
        "nvidia.com/gpu",
        pattern=rf"^{_DNS_SUBDOMAIN}/{_NAME}$",
        description="Name of the cluster's GPU resource: DOMAIN/NAME.",
    )
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have to run the container.")

    @field_validator("node_selector")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                raise ValueError(f"keys of the form [DOMAIN/]NAME, NAME of letters, digits, - _ and .; not {key!r}")
            if not _LABEL_VALUE.fullmatch(value):
                raise ValueError(f"values of at most 63 letters, digits, - _ and .; not {value!r}")
        return labels

    @model_validator(mode="after")
    def _check_requests(self):
        for request, limit in (("cpu_request", "cpu_limit"), ("memory_request_gb", "memory_limit_gb")):
            requested, most = getattr(self, request), getattr(self, limit)
            if most and requested > most:
                raise ValueError(f"{request}: found {requested:g}; expected at most {limit}, which is {most:g}")
        return self


class Retries(Section):
    """Retries of a failed container."""

    most: int = Field(2, ge=0, description="Maximum number of retries.")
    back_off_seconds: float = Field(30.0, gt=0, description="Seconds before the first retry.")
    factor: float = Field(2.0, ge=1, description="Factor by which the wait grows with each retry.")
    most_back_off_seconds: float = Field(600.0, gt=0, description="Maximum seconds between retries.")


class Secret(Section):
    """A Kubernetes Secret whose values every container has as environment variables."""

    name: ObjectName = Field(description="Name of the Secret, in the namespace of the runs.")
    variables: dict[EnvironmentVariable, SecretKey] = Field(
        min_length=1, description="Keys of the Secret, by the environment variable that gets the value."
    )


class Storage(Section):
    """How tasks reach the object storage of pipeline_root themselves; Kubeflow's launcher has its own way."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+$",
        description="http(s)://HOST:PORT of an S3 server, such as MinIO or SeaweedFS; null: AWS or Google.",
    )
    region: str | None = Field(None, description="Region of the bucket; null: the server's default.")
    secret: ObjectName | None = Field(
        None, description="Secret with the credentials; null: those of the service account or of the environment."
    )
    access_key: SecretKey = Field("accesskey", description="Key of the Secret with the access key.")
    secret_key: SecretKey = Field("secretkey", description="Key of the Secret with the secret key.")


class Mlflow(Section):
    """Input of the MLflow plugin of Kubeflow Pipelines, which a cluster's administrator turns on."""

    experiment_name: str | None = Field(None, min_length=1, description="Experiment of MLflow; null: the cluster's.")
    experiment_id: str | None = Field(None, min_length=1, description="Experiment of MLflow, by its id.")
    disabled: bool = Field(False, description="Do not track these runs.")

    @model_validator(mode="after")
    def _check_experiment(self):
        if self.experiment_name and self.experiment_id:
            raise ValueError("experiment_id: not valid together with experiment_name; set one of them")
        return self


class Kubeflow(Section):
    """How the pipeline runs on Kubeflow Pipelines."""

    pipeline_root: str = Field(
        "minio://mlpipeline/v2/artifacts", description="Location of the artifacts: minio://, s3:// or gs://."
    )
    cache: bool = Field(
        True, description="Reuse results of earlier runs with the same code, inputs and parameters; needs storage."
    )
    storage: Storage | None = Field(
        None, description="How tasks reach pipeline_root, to look for results of earlier runs; null: they do not."
    )
    retries: Retries = Field(Retries(), description="Retries of a failed container.")
    resources: dict[str, Resources] = Field(
        {}, description="Resources by node (Teacher-1), kind of node (Teacher, Evaluator), or default."
    )
    volumes: list[Volume] = Field([], description="Volumes mounted in every container.")
    secrets: list[Secret] = Field([], description="Secrets in the environment of every container.")
    service_account: ObjectName | None = Field(
        None, description="Kubernetes service account of the runs; null: the cluster's default."
    )
    mlflow: Mlflow | None = Field(None, description="Input of Kubeflow's own MLflow plugin; null: none.")
    checkpoints: str | None = Field(
        None, description="Folder of checkpoints on a volume or gs://, from which a retry resumes; null: none."
    )

    @model_validator(mode="after")
    def _check_mounts(self):
        mounts: dict[str, str] = {}
        for volume in self.volumes:
            path = posixpath.normpath(volume.mount)
            if path in mounts:
                raise ValueError(f"volumes: found {mounts[path]} and {volume.claim} both at {path}; expected one")
            mounts[path] = volume.claim
        variables: dict[str, str] = {}
        for secret in self.secrets:
            for variable in secret.variables:
                if variable in variables:
                    raise ValueError(
                        f"secrets: found {variable} both from {variables[variable]} and {secret.name}; expected one"
                    )
                variables[variable] = secret.name
        return self
