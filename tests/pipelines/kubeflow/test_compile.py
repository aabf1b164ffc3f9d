"""The compiled pipeline, and what Kubeflow's backend would refuse."""

import copy
import re

import blobs
import pytest
import yaml

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import parse_settings
from stillhouse.pipelines.kubeflow.check import MAX_BYTES, reasons_against
from stillhouse.pipelines.kubeflow.compile import as_yaml, compile_pipeline

IMAGE = "registry.example/stillhouse:1.0"


def raw_settings(**kubeflow):
    raw = blobs.settings()
    raw["data"]["path"], raw["push"]["path"] = "/data/blobs", "/data/serving"
    raw["kubeflow"] = {"volumes": [{"claim": "data", "mount": "/data"}]} | kubeflow
    return raw


def settings(**kubeflow):
    return parse_settings(raw_settings(**kubeflow), "blobs.yaml")


@pytest.fixture
def task(tmp_path, monkeypatch):
    blobs.write_project(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("task")
def test_the_same_settings_give_the_same_bytes():
    first = as_yaml(compile_pipeline(settings(), IMAGE))
    assert first == as_yaml(compile_pipeline(settings(), IMAGE))
    assert list(yaml.safe_load_all(first)) == compile_pipeline(settings(), IMAGE)


def test_every_task_is_a_container_with_an_entry_point_of_ours(documents):
    spec = documents[0]
    assert spec["schemaVersion"] == "2.1.0"
    for label, executor in spec["deploymentSpec"]["executors"].items():
        assert executor["container"]["image"] == IMAGE
        own = label in ("exec-comparedata", "exec-rememberdata")
        module = "stillhouse.pipelines.kubeflow.changes" if own else "stillhouse.pipelines.kubeflow.entrypoint"
        assert executor["container"]["command"][:3] == ["python", "-m", module]


def inner(spec):
    """Returns the tasks after ExampleGen."""
    return spec["components"]["comp-retrain"]["dag"]["tasks"]


@pytest.mark.usefixtures("task")
def test_a_run_goes_on_after_example_gen_if_data_have_changed(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert list(tasks) == ["examplegen", "comparedata", "retrain"]
    condition = "inputs.parameter_values['pipelinechannel--comparedata-changed'] == 'true'"
    assert tasks["retrain"]["triggerPolicy"] == {"condition": condition}
    compared = tasks["comparedata"]["inputs"]["parameters"]
    assert {"student_seed", "data_path", "only_if_changed", "content"} <= set(compared)
    assert inner(documents[0])["rememberdata"]["dependentTasks"] == ["report"]
    content = compared["content"]["runtimeValue"]["constant"]
    other = compile_pipeline(settings(), "registry.example/stillhouse:1.1")[0]["root"]["dag"]["tasks"]
    assert other["comparedata"]["inputs"]["parameters"]["content"]["runtimeValue"]["constant"] != content


@pytest.mark.usefixtures("task")
def test_windows_of_spans_and_warm_starts_read_where_a_run_says():
    raw = raw_settings()
    raw["data"] |= {"path": "/data/span-{SPAN}", "spans": 3}
    raw["student"]["warm_start"] = raw["teachers"][0]["warm_start"] = True
    (spec, _) = compile_pipeline(parse_settings(raw, "blobs.yaml"), IMAGE)
    tasks = inner(spec)
    for name in ("warmstart-student", "warmstart-teacher-1", "newestspan", "earlierspans"):
        assert tasks[name]["cachingOptions"] == {}
    for name in ("newestspan", "earlierspans"):
        span = tasks[name]["inputs"]["parameters"]["set_span"]
        assert span == {"componentInputParameter": "pipelinechannel--span"}
    assert "drift" in tasks["transform"]["dependentTasks"]
    push = tasks["warmstart-teacher-1"]["inputs"]["parameters"]["set_push_path"]
    assert push == {"componentInputParameter": "pipelinechannel--push_path"}
    for name in ("teacher-1", "student"):
        assert (
            tasks[name]["inputs"]["artifacts"]["base_model"]["taskOutputArtifact"]["producerTask"]
            == f"warmstart-{name}"
        )


def test_what_a_run_changes_are_parameters_with_defaults(documents):
    spec = documents[0]
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["data_path"]["defaultValue"] == "/data/blobs"
    assert parameters["push_path"]["defaultValue"] == "/data/serving"
    assert parameters["student_epochs"]["defaultValue"] == blobs.settings()["student"]["epochs"]
    tasks, channel = inner(spec), "pipelinechannel--"
    for name in ("student", "baseline"):
        given = tasks[name]["inputs"]["parameters"]["set_epochs"]
        assert given == {"componentInputParameter": f"{channel}student_epochs"}
    seed = tasks["teacher-1"]["inputs"]["parameters"]["set_seed"]
    assert seed == {"componentInputParameter": f"{channel}teacher_1_seed"}
    retrain = spec["root"]["dag"]["tasks"]["retrain"]["inputs"]["parameters"]
    assert retrain[f"{channel}student_epochs"] == {"componentInputParameter": "student_epochs"}


@pytest.mark.usefixtures("task")
def test_limits_retries_cache_and_selectors_come_from_the_settings():
    resources = {
        "default": {"cpu_request": 0.5, "memory_limit_gb": 2.0},
        "Teacher": {"cpu_limit": 4.0, "gpus": 2, "node_selector": {"pool": "gpu"}},
        "Student": {"cpu_limit": 1.0},
    }
    retries = {"most": 5, "back_off_seconds": 10.0}
    spec, platform = compile_pipeline(settings(resources=resources, retries=retries), IMAGE)
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-transform"]["container"]["resources"] == {"cpuRequest": 0.5, "memoryLimit": 2.0}
    teacher = executors["exec-teacher-1"]["container"]["resources"]
    assert teacher == {"cpuLimit": 4.0, "accelerator": {"type": "nvidia.com/gpu", "count": "2"}}
    assert executors["exec-student"]["container"]["resources"] == {"cpuLimit": 1.0}
    tasks = inner(spec) | spec["root"]["dag"]["tasks"]
    assert tasks["student"]["retryPolicy"]["maxRetryCount"] == 5
    assert tasks["student"]["retryPolicy"]["backoffDuration"] == "10s"
    assert tasks["student"]["cachingOptions"] == {"enableCache": True}
    # What is in a folder outside, Kubeflow's cache does not see.
    assert all(tasks[name]["cachingOptions"] == {} for name in ("examplegen", "lastpushed", "pusher"))
    of = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert of["exec-teacher-1"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert of["exec-comparedata"] == of["exec-pusher"] == {"pvcMount": [{"constant": "data", "mountPath": "/data"}]}


@pytest.mark.parametrize(
    ("section", "key", "path"),
    [("data", "path", "data/blobs"), ("push", "path", "/serving"), ("data", "transfer", "s3://bucket/more")],
)
def test_a_path_that_the_cluster_cannot_see_is_named(section, key, path):
    raw = raw_settings()
    raw[section][key] = path
    with pytest.raises(UserError, match=rf"{section}.{key}: the cluster cannot see '{path}'; .*\(/data\)"):
        compile_pipeline(parse_settings(raw, "x"), IMAGE)


def test_a_local_pipeline_root_is_refused():
    with pytest.raises(UserError, match="kubeflow.pipeline_root: found 'runs'; expected a path that begins with minio"):
        compile_pipeline(settings(pipeline_root="runs"), IMAGE)


def change(documents, path, value):
    changed = copy.deepcopy(documents)
    *parents, last = path
    target = changed
    for key in parents:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return changed


OUTER = (0, "root", "dag", "tasks")
TASKS = (0, "components", "comp-retrain", "dag", "tasks")
EXECUTORS = (0, "deploymentSpec", "executors")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ((0, "schemaVersion"), "2.0.0", "schemaVersion is '2.0.0'; only 2.1.0 is taken"),
        ((0, "pipelineInfo", "name"), "Blobs", "the pipeline's name 'Blobs' is not made of"),
        ((0, "pipelineInfo", "name"), "b" * 129, "128 at the most"),
        ((0, "surprise"), 1, "not a PipelineSpec: .*surprise"),
        ((*EXECUTORS, "exec-student"), {"resolver": {}}, "'exec-student': resolver executors are not implemented"),
        (
            (*EXECUTORS, "exec-examplegen", "container", "lifecycle"),
            {"preCacheCheck": {"command": ["driver"]}},
            "'exec-examplegen': lifecycle.preCacheCheck is ignored",
        ),
        ((*EXECUTORS, "exec-student", "container", "image"), None, "'exec-student': it has no image"),
        ((*EXECUTORS, "exec-student"), None, "'student': its executor is missing"),
        ((0, "components", "comp-student"), None, "task 'student': its component is missing"),
        (
            (*TASKS, "student", "inputs", "parameters", "set_seed"),
            {"componentInputParameter": "sead"},
            "'student': the pipeline has no parameter 'sead'",
        ),
        (
            (*TASKS, "student", "inputs", "parameters", "set_seed"),
            {"runtimeValue": {"runtimeParameter": "seed"}},
            "'student': the parameter 'set_seed' is a runtime parameter",
        ),
        (
            (0, "components", "comp-student", "inputDefinitions", "parameters", "set_seed"),
            None,
            "'student': its component has no parameter 'set_seed'",
        ),
        (
            (*TASKS, "student", "inputs", "artifacts", "examples", "taskOutputArtifact", "producerTask"),
            "nobody",
            "'student': nothing makes its input 'examples'",
        ),
        ((*TASKS, "student", "dependentTasks"), ["nobody"], "'student': it waits for 'nobody', which is missing"),
        ((*TASKS, "transform", "dependentTasks"), ["student"], "tasks wait for each other: .*student"),
        (OUTER, {}, "it has no tasks"),
        (TASKS, {}, "it has no tasks"),
        (
            (*TASKS, "statisticsgen", "inputs", "artifacts", "examples"),
            {"componentInputArtifact": "nothing"},
            "'statisticsgen': nothing makes its input 'examples'",
        ),
        (
            (*OUTER, "retrain", "inputs", "parameters", "pipelinechannel--comparedata-changed"),
            None,
            "'retrain': its condition reads 'pipelinechannel--comparedata-changed', which is not an input of the task",
        ),
        (
            (0, "components", "comp-comparedata", "outputDefinitions"),
            None,
            "'retrain': nothing makes its parameter 'pipelinechannel--comparedata-changed'",
        ),
        (
            (0, "root", "inputDefinitions", "parameters", "push_path", "description"),
            "x" * MAX_BYTES,
            "expected at most 1,000,000, which Kubernetes keeps",
        ),
        ((1, "platforms", "other"), {}, "the second document is not the Kubernetes platform spec"),
        (
            (1, "platforms", "kubernetes", "deploymentSpec", "executors", "exec-x"),
            {},
            "the platform spec has an executor 'exec-x' that the pipeline has not",
        ),
    ],
)
def test_what_the_backend_refuses_or_ignores_is_refused(documents, path, value, reason):
    assert not list(reasons_against(documents))
    found = list(reasons_against(change(documents, path, value)))
    assert any(re.search(reason, one) for one in found), found


def test_a_task_name_that_argo_does_not_take_is_refused(documents):
    changed = copy.deepcopy(documents)
    tasks = inner(changed[0])
    tasks["Evaluator.x"] = tasks.pop("report")
    assert any("task 'Evaluator.x': names are lower-case" in reason for reason in reasons_against(changed))
