"""TF_CONFIG as a value."""

import json

import pytest

from stillhouse.modules.cluster.spec import ClusterSpec, cluster_from, in_step, is_chief
from stillhouse.modules.errors import UserError

TWO = ["127.0.0.1:1", "127.0.0.1:2"]


def environment(kind, index, **addresses):
    return {"TF_CONFIG": json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}})}


def cluster(kind, index, **addresses):
    return cluster_from(environment(kind, index, **addresses))


def test_a_process_without_tf_config_is_alone():
    assert cluster_from({}) is None
    assert cluster_from({"TF_CONFIG": ""}) is None


def test_a_member_knows_its_name_and_where_it_listens():
    member = cluster("worker", 1, worker=TWO)
    assert (member.task_name, member.address) == ("worker-1", "127.0.0.1:2")


def test_the_chief_writes_or_worker_0_where_there_is_none():
    assert is_chief(None)
    assert is_chief(cluster("worker", 0, worker=TWO))
    assert not is_chief(cluster("worker", 1, worker=TWO))
    assert not is_chief(cluster("worker", 0, chief=TWO[:1], worker=TWO))
    assert is_chief(cluster("chief", 0, chief=TWO[:1], worker=TWO))


def test_workers_of_a_parameter_server_do_not_train_in_step():
    assert in_step(cluster("worker", 1, worker=TWO)) == ["worker-0", "worker-1"]
    assert in_step(cluster("chief", 0, chief=TWO[:1], worker=TWO, ps=TWO[:1])) == ["chief-0"]
    assert in_step(None) == ["chief-0"]


def test_a_tf_config_that_is_no_json_or_names_a_task_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="TF_CONFIG: expected"):
        cluster_from({"TF_CONFIG": "{"})
    with pytest.raises(UserError, match="found task worker 2; expected a task of the cluster, which has 1 worker"):
        cluster("worker", 2, worker=TWO[:1])


@pytest.mark.parametrize(("kind", "expected"), [("chief", "chief"), ("worker", "stage")])
def test_workers_of_the_training_operator_are_the_stages(kind, expected):
    variables = environment(kind, 0, chief=["a:1"], worker=["b:1", "c:1"])
    stages = cluster_from(variables, workers_are_stages=True)
    assert stages == ClusterSpec({"chief": ["a:1"], "stage": ["b:1", "c:1"]}, expected, 0)
    of_supervisor = environment(expected, 0, **stages.addresses)
    assert cluster_from(of_supervisor, workers_are_stages=True) == stages
