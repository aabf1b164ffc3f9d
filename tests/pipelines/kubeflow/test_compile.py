"""The compiled pipeline, and what Kubeflow's backend would refuse."""

import copy
import json
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


def parsed(**kubeflow):
    return parse_settings(raw_settings(**kubeflow), "blobs.yaml")


@pytest.fixture
def task(tmp_path, monkeypatch):
    blobs.write_project(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("task")
def test_the_same_settings_give_the_same_bytes():
    first = as_yaml(compile_pipeline(parsed(), IMAGE))
    assert first == as_yaml(compile_pipeline(parsed(), IMAGE))
    assert list(yaml.safe_load_all(first)) == compile_pipeline(parsed(), IMAGE)


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
    other = compile_pipeline(parsed(), "registry.example/stillhouse:1.1")[0]["root"]["dag"]["tasks"]
    assert other["comparedata"]["inputs"]["parameters"]["content"]["runtimeValue"]["constant"] != content


@pytest.mark.usefixtures("task")
def test_windows_of_spans_and_warm_starts_read_where_a_run_says():
    raw = raw_settings()
    raw["data"] |= {"path": "/data/span-{SPAN}", "spans": 3}
    raw["student"]["warm_start"] = raw["teachers"][0]["warm_start"] = True
    (spec, _) = compile_pipeline(parse_settings(raw, "blobs.yaml"), IMAGE)
    tasks = inner(spec)
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
def test_fold_teachers_are_tasks_with_parameters_and_resources_of_their_teacher():
    raw = raw_settings(resources={"Teacher-2": {"cpu_limit": 4.0}, "Teacher": {"cpu_limit": 2.0}})
    raw["teachers"] = [{"copies": 2}]
    raw["student"]["distillation"] = {"folds": 3}
    documents = compile_pipeline(parse_settings(raw, "blobs.yaml"), IMAGE)
    assert list(reasons_against(documents)) == []
    tasks, executors = inner(documents[0]), documents[0]["deploymentSpec"]["executors"]
    asked = tasks["softtargets"]["inputs"]["artifacts"]
    folds = [f"teacher-{teacher}-fold-{fold}" for teacher in (1, 2) for fold in (1, 2, 3)]
    assert [asked[f"fold_{n}"]["taskOutputArtifact"]["producerTask"] for n in range(1, 7)] == folds
    for name in folds:
        teacher = name[len("teacher-")]
        parameters, limit = tasks[name]["inputs"]["parameters"], {"1": 2.0, "2": 4.0}[teacher]
        channel = f"pipelinechannel--teacher_{teacher}"
        assert parameters["set_seed"] == {"componentInputParameter": f"{channel}_seed"}
        assert parameters["set_epochs"] == {"componentInputParameter": f"{channel}_epochs"}
        assert executors[f"exec-{name}"]["container"]["resources"] == {"cpuLimit": limit}
    assert not any("fold" in key for name in ("ensemble", "evaluator", "report") for key in artifacts_of(tasks[name]))


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("targets", ["cached", "online"])
def test_the_seed_of_the_student_is_that_of_its_cached_views(targets):
    raw = raw_settings()
    raw["student"] |= {"noise": 0.1, "distillation": {"targets": targets}}
    documents = compile_pipeline(parse_settings(raw, "blobs.yaml"), IMAGE)
    assert list(reasons_against(documents)) == []
    tasks, seed = inner(documents[0]), {"componentInputParameter": "pipelinechannel--student_seed"}
    has_seed = [name for name, task in tasks.items() if task["inputs"].get("parameters", {}).get("set_seed") == seed]
    assert sorted(has_seed) == ["baseline", *(["softtargets"] if targets == "cached" else []), "student"]


def artifacts_of(task):
    return [
        source["taskOutputArtifact"]["producerTask"]
        for source in task["inputs"]["artifacts"].values()
        if "taskOutputArtifact" in source
    ]


@pytest.mark.usefixtures("task")
def test_limits_retries_and_selectors_come_from_the_settings():
    resources = {
        "default": {"cpu_request": 0.5, "memory_limit_gb": 2.0},
        "Teacher": {"cpu_limit": 4.0, "gpus": 2, "node_selector": {"pool": "gpu"}},
        "Student": {"cpu_limit": 1.0},
    }
    retries = {"most": 5, "back_off_seconds": 10.0}
    spec, platform = compile_pipeline(parsed(resources=resources, retries=retries), IMAGE)
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-transform"]["container"]["resources"] == {"cpuRequest": 0.5, "memoryLimit": 2.0}
    teacher = executors["exec-teacher-1"]["container"]["resources"]
    assert teacher == {"cpuLimit": 4.0, "accelerator": {"type": "nvidia.com/gpu", "count": "2"}}
    assert executors["exec-student"]["container"]["resources"] == {"cpuLimit": 1.0}
    tasks = inner(spec) | spec["root"]["dag"]["tasks"]
    assert tasks["student"]["retryPolicy"]["maxRetryCount"] == 5
    assert tasks["student"]["retryPolicy"]["backoffDuration"] == "10s"
    of = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert of["exec-teacher-1"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert of["exec-comparedata"] == of["exec-pusher"] == {"pvcMount": [{"constant": "data", "mountPath": "/data"}]}


def arguments_of(spec, task):
    """Returns the arguments of a task by their names."""
    args = spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]["args"]
    return dict(zip(args[::2], args[1::2], strict=False))


@pytest.mark.usefixtures("task")
def test_tasks_look_for_earlier_results_where_they_can_reach_the_storage():
    storage = {"endpoint": "http://minio-service.kubeflow:9000", "secret": "mlpipeline-minio-artifact"}
    spec, platform = compile_pipeline(parsed(storage=storage), IMAGE)
    student = arguments_of(spec, "student")
    assert student["--task"] == "student"
    assert student["--results"] == "minio://mlpipeline/v2/artifacts/.stillhouse/blobs/student"
    assert json.loads(student["--omitted"]) == ["preprocessing_fn", "build_teacher"]
    assert json.loads(arguments_of(spec, "transform")["--omitted"]) == ["build_student", "build_teacher"]
    omitted = json.loads(arguments_of(spec, "softtargets")["--omitted"])
    assert omitted == ["preprocessing_fn", "build_student", "build_teacher"]
    for never in ("lastpushed", "pusher", "report"):  # what they do depends on what is pushed, or tells of the run
        assert "--results" not in arguments_of(spec, never)
    container = spec["deploymentSpec"]["executors"]["exec-student"]["container"]
    assert container["env"] == [{"name": "STILLHOUSE_STORAGE_ENDPOINT", "value": storage["endpoint"]}]
    of = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-student"]
    assert of["secretAsEnv"] == [
        {
            "secretName": "mlpipeline-minio-artifact",
            "keyToEnv": [
                {"secretKey": "accesskey", "envVar": "STILLHOUSE_STORAGE_ACCESS_KEY"},
                {"secretKey": "secretkey", "envVar": "STILLHOUSE_STORAGE_SECRET_KEY"},
            ],
        }
    ]
    for off in ({"storage": storage, "cache": False}, {}):
        spec, _ = compile_pipeline(parsed(**off), IMAGE)
        assert "--results" not in arguments_of(spec, "student")


@pytest.mark.usefixtures("task")
def test_a_task_gets_each_artifact_once():
    raw = raw_settings()
    raw["data"]["transfer"] = "/data/more"
    small = {"epochs": 1, "start": {"pretraining": "large"}, "distillation": {"teacher": "large", "temperature": 2.0}}
    raw["pretraining"] = {"large": {"epochs": 1}, "small": small}
    spec, _ = compile_pipeline(parse_settings(raw, "x"), IMAGE)
    artifacts = inner(spec)["pretraining-small"]["inputs"]["artifacts"]
    assert "teacher_1" not in artifacts
    assert artifacts["base_model"]["taskOutputArtifact"]["producerTask"] == "pretraining-large"
    assert "teacher_1" not in spec["components"]["comp-pretraining-small"]["inputDefinitions"]["artifacts"]
    assert json.loads(arguments_of(spec, "pretraining-small")["--same"]) == {"teacher_1": "base_model"}
    assert "--same" not in arguments_of(spec, "pretraining-large")


@pytest.mark.usefixtures("task")
def test_secrets_of_the_user_are_in_every_container():
    secrets = [{"name": "google", "variables": {"GOOGLE_APPLICATION_CREDENTIALS": "key.json"}}]
    _, platform = compile_pipeline(parsed(secrets=secrets), IMAGE)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    expected = [
        {
            "secretName": "google",
            "keyToEnv": [{"secretKey": "key.json", "envVar": "GOOGLE_APPLICATION_CREDENTIALS"}],
        }
    ]
    assert all(of["secretAsEnv"] == expected for of in executors.values())
    assert "exec-comparedata" in executors


@pytest.mark.parametrize(
    ("kubeflow", "message"),
    [
        ({"volumes": [{"claim": "Team_Data", "mount": "/data"}]}, r"volumes\[0\].claim: found 'Team_Data'"),
        ({"volumes": [{"claim": "", "mount": "/data"}]}, r"volumes\[0\].claim: found ''"),
        ({"volumes": [{"claim": "data", "mount": "/da:ta"}]}, r"volumes\[0\].mount: found '/da:ta'"),
        (
            {"volumes": [{"claim": "data", "mount": "/"}]},
            r"volumes\[0\].mount: found '/'; .* which holds the container",
        ),
        ({"volumes": [{"claim": "data", "mount": "/minio/x"}]}, r"volumes\[0\].mount: .*outside /minio"),
        (
            {"volumes": [{"claim": "a", "mount": "/data"}, {"claim": "b", "mount": "/data/"}]},
            "kubeflow.volumes: found a and b both at /data; expected one",
        ),
        (
            {"resources": {"default": {"cpu_request": 4.0, "cpu_limit": 2.0}}},
            "kubeflow.resources.default.cpu_request: found 4; expected at most cpu_limit, which is 2",
        ),
        (
            {"resources": {"default": {"memory_request_gb": 8.0, "memory_limit_gb": 4.0}}},
            "memory_request_gb: found 8; expected at most memory_limit_gb, which is 4",
        ),
        ({"resources": {"Teacher": {"gpus": 1, "gpu_type": "nvidia gpu"}}}, "gpu_type: found 'nvidia gpu'"),
        ({"resources": {"Teacher": {"node_selector": {"my pool!": "a"}}}}, "node_selector: .*not 'my pool!'"),
        ({"resources": {"Teacher": {"node_selector": {"pool": "a b"}}}}, "node_selector: .*not 'a b'"),
        ({"secrets": [{"name": "s", "variables": {"1X": "k"}}]}, r"secrets\[0\].variables"),
        (
            {"secrets": [{"name": name, "variables": {"TOKEN": "k"}} for name in ("a", "b")]},
            "kubeflow.secrets: found TOKEN both from a and b; expected one",
        ),
        ({"service_account": "Trainer"}, "service_account: found 'Trainer'"),
        ({"storage": {"endpoint": "minio-service:9000"}}, "storage.endpoint: found 'minio-service:9000'"),
        (
            {"mlflow": {"experiment_name": "a", "experiment_id": "1"}},
            "kubeflow.mlflow.experiment_id: not valid together",
        ),
    ],
)
def test_what_kubernetes_refuses_of_a_pod_is_refused_with_its_key(kubeflow, message):
    with pytest.raises(UserError, match=message):
        parsed(**kubeflow)


@pytest.mark.usefixtures("task")
def test_resources_of_a_node_that_does_not_exist_are_refused():
    for name in ("Teacher", "Teacher-1", "default", "CompareData"):
        compile_pipeline(parsed(resources={name: {"cpu_limit": 1.0}}), IMAGE)
    with pytest.raises(UserError, match=r"kubeflow.resources: found 'Techer', .*; did you mean Teacher\?"):
        compile_pipeline(parsed(resources={"Techer": {"cpu_limit": 1.0}}), IMAGE)


@pytest.mark.parametrize("names", [("Small", "small"), ("a__b", "a_b")])
@pytest.mark.usefixtures("task")
def test_names_that_are_one_task_on_kubeflow_are_refused(names):
    raw = raw_settings()
    raw["data"]["transfer"] = "/data/more"
    raw["pretraining"] = {name: {"epochs": 1} for name in names}
    with pytest.raises(UserError, match=f"pretraining: found '{names[0]}' and '{names[1]}', which are one task"):
        compile_pipeline(parse_settings(raw, "x"), IMAGE)


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
        compile_pipeline(parsed(pipeline_root="runs"), IMAGE)


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
        (
            (*TASKS, "report", "inputs", "artifacts", "anomalies"),
            {"taskOutputArtifact": {"producerTask": "schemagen", "outputArtifactKey": "schema"}},
            "'report': its inputs '(anomalies|schema)' and '(anomalies|schema)' are the same artifact",
        ),
        (
            (*TASKS, "report", "inputs", "parameters", "settings", "runtimeValue", "constant"),
            "x" * 131_072,
            "'report': the executor input is an argument of 1..,... bytes; Linux takes at most 131,072; its longest "
            "parameter is 'settings', 131,074 bytes",
        ),
        (
            (*TASKS, "report", "inputs", "parameters", "settings", "runtimeValue", "constant"),
            "x" * 131_072,
            "'retrain': the component is an argument of",
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
