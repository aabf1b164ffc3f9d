"""The TFJob manifest against the schema of kubeflow.org/v1, as the operator publishes it."""

import blobs
import pytest
import yaml
from kubernetes import client

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.kubeflow.training_operator import Pods, tfjob

PODS = Pods("registry.example/blobs:1", "ml", "files", "/pipeline", "/pipeline/job.json")
RUN_POLICY = {
    "activeDeadlineSeconds",
    "backoffLimit",
    "cleanPodPolicy",
    "schedulingPolicy",
    "suspend",
    "ttlSecondsAfterFinished",
}
SPEC = {"enableDynamicWorker", "runPolicy", "successPolicy", "tfReplicaSpecs"}


def manifest(model="Student", parallelism=None, **strategy):
    student = {"epochs": 1, "strategy": strategy, "restarts": {"most": 7}, "parallelism": parallelism or {}}
    return tfjob(parse_settings(blobs.settings(student=student), "x.yaml"), model, PODS)


@pytest.mark.parametrize(
    ("strategy", "replicas"),
    [
        ({"name": "multi_worker_mirrored", "workers": 4}, {"Worker": 4}),
        ({"name": "parameter_server", "workers": 3, "parameter_servers": 2}, {"Chief": 1, "PS": 2, "Worker": 3}),
        (
            {"name": "one_device", "parallelism": {"stages": 3, "replicas": 2, "processes": True}},
            {"Chief": 1, "Worker": 6},
        ),
    ],
)
def test_the_manifest_fits_the_published_schema(strategy, replicas):
    found = yaml.safe_load(yaml.safe_dump(manifest(**strategy)))
    assert (found["apiVersion"], found["kind"]) == ("kubeflow.org/v1", "TFJob")
    assert found["metadata"] == {"name": "blobs-student", "namespace": "ml"}
    spec = found["spec"]
    assert set(spec) <= SPEC
    assert set(spec["runPolicy"]) <= RUN_POLICY
    assert spec["runPolicy"]["backoffLimit"] == 7
    assert {kind: replica["replicas"] for kind, replica in spec["tfReplicaSpecs"].items()} == replicas
    for replica in spec["tfReplicaSpecs"].values():
        assert set(replica) == {"replicas", "restartPolicy", "template"}
        assert replica["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
        pod = replica["template"]["spec"]
        assert set(pod) <= set(client.V1PodSpec.attribute_map.values())
        (container,) = pod["containers"]
        assert container["name"] == "tensorflow"
        assert set(container) <= set(client.V1Container.attribute_map.values())
        assert container["command"][-1] == "/pipeline/job.json"
        assert container["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]


def test_a_strategy_of_one_process_makes_no_tfjob():
    with pytest.raises(UserError, match="strategy.name is mirrored, which is one process"):
        manifest(name="mirrored")


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(UserError, match="--model: found Teacher-9; expected one of: Teacher-1, Baseline, St"):
        manifest("Teacher-9", name="mirrored")
