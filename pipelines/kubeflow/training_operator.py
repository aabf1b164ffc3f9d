"""A training of several processes as a TFJob of the Kubeflow Training Operator (kubeflow.org/v1).

The operator sets TF_CONFIG in every pod, so that `modules.training.member` joins the cluster instead of starting one.
"""

from dataclasses import dataclass
from typing import Any

from kubernetes import client

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Settings, Training

CONTAINER = "tensorflow"  # the operator looks for a container of this name


@dataclass(frozen=True)
class Pods:
    """Where the processes run and what they share."""

    image: str
    namespace: str
    claim: str  # a PersistentVolumeClaim with the pipeline's files, mounted in every pod
    mount: str  # where
    job_file: str  # below `mount`: what to train, as a Trainer leaves it in model_run/N/cluster/job.json


def find_training(settings: Settings, model: str) -> Training:
    """Returns the settings of the model of this name: Teacher-N, Baseline or Student.

    Raises:
      UserError: there is none.
    """
    teachers = {f"Teacher-{number}": teacher for number, teacher in enumerate(settings.all_teachers(), start=1)}
    models = teachers | {"Baseline": settings.student, "Student": settings.student}
    if model not in models:
        raise UserError(f"--model: found {model}; expected one of: {', '.join(models)}")
    return models[model]


def tfjob(settings: Settings, model: str, pods: Pods) -> dict[str, Any]:
    """Returns the manifest of the TFJob that trains one model.

    Raises:
      UserError: there is no such model, or it is trained by one process.
    """
    training = find_training(settings, model)
    strategy, parallelism = training.strategy, training.parallelism
    counts: dict[str, int | None]
    if parallelism.processes:
        counts = {"Chief": 1, "Worker": parallelism.replicas * parallelism.stages}
    elif strategy.name == "parameter_server":
        counts = {"Chief": 1, "PS": strategy.parameter_servers, "Worker": strategy.workers}
    elif strategy.name == "multi_worker_mirrored":
        counts = {"Worker": strategy.workers}
    else:
        raise UserError(
            f"{model}: strategy.name is {strategy.name}, which is one process; a TFJob is for multi_worker_mirrored, "
            "parameter_server, and parallelism.processes"
        )
    template = _template(pods)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "metadata": {"name": f"{settings.name}-{model.lower()}", "namespace": pods.namespace},
        "spec": {
            # Parameter servers and their workers never end by themselves.
            "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": training.restarts.most},
            "tfReplicaSpecs": {
                kind: {"replicas": count, "restartPolicy": "OnFailure", "template": template}
                for kind, count in counts.items()
            },
        },
    }


def _template(pods: Pods) -> dict[str, Any]:
    container = client.V1Container(
        name=CONTAINER,
        image=pods.image,
        command=["python", "-m", "stillhouse.modules.training.member", pods.job_file],
        volume_mounts=[client.V1VolumeMount(name="pipeline", mount_path=pods.mount)],
    )
    claim = client.V1PersistentVolumeClaimVolumeSource(claim_name=pods.claim)
    template = client.V1PodTemplateSpec(
        spec=client.V1PodSpec(
            containers=[container],
            volumes=[client.V1Volume(name="pipeline", persistent_volume_claim=claim)],
        )
    )
    return client.ApiClient().sanitize_for_serialization(template)
