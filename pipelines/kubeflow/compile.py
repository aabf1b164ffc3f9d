"""Settings -> PipelineSpec (schema 2.1.0) for the backend of open-source Kubeflow Pipelines.

TFX's own compiler makes the spec; what that backend refuses or ignores is changed here, in the open: names of tasks,
the ExampleGen driver's hook, defaults for parameters, retries, caching, resources, the Kubernetes part, and the
condition under which a run goes on after ExampleGen.
"""

import re
from typing import Any

import yaml
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig

from stillhouse.modules.settings import Kubeflow, Resources, Settings
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.kubeflow import only_if_changed
from stillhouse.pipelines.kubeflow.check import refuse_unfit
from stillhouse.pipelines.kubeflow.parameters import PREFIX, Parameter, parameters_of
from stillhouse.pipelines.kubeflow.paths import kubeflow_paths

ENTRY_POINT = ("python", "-m", "stillhouse.pipelines.kubeflow.entrypoint")

# What these do depends on a folder outside of the pipeline, which Kubeflow's cache does not look into.
NEVER_CACHED = (
    "ExampleGen",
    "NewestSpan",
    "EarlierSpans",
    "TransferExampleGen",
    "LastPushed",
    "WarmStart",
    "Pusher",
    "CompareData",
    "RememberData",
)


def compile_pipeline(settings: Settings, image: str) -> list[dict[str, Any]]:
    """Returns the documents of the pipeline's YAML file: the PipelineSpec, and the Kubernetes part if there is one.

    Raises:
      UserError: the settings name something that a cluster cannot see or Kubeflow does not run.
    """
    paths = kubeflow_paths(settings)
    pipeline = create_pipeline(settings, paths)
    config = KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(ENTRY_POINT), use_pipeline_spec_2_1=True
    )
    spec = KubeflowV2DagRunner(config).run(pipeline, write_out=False)["pipelineSpec"]
    parameters = parameters_of(settings, paths.data_path, paths.push_path)
    _add_parameters(spec, parameters)
    for executor in spec["deploymentSpec"]["executors"].values():
        # Hooks are ignored; our entry point runs the driver.
        executor["container"].pop("lifecycle", None)
    only_if_changed.add_tasks(spec, image, paths.commit)
    _set_limits(spec, settings.kubeflow)
    platform = _platform(spec, settings.kubeflow)
    spec = _renamed(spec)
    only_if_changed.nest(spec, task_name(only_if_changed.FIRST), task_name(only_if_changed.COMPARE))
    documents = [spec, *([platform] if platform else [])]
    refuse_unfit(documents)
    return documents


def as_yaml(documents: list[dict[str, Any]]) -> str:
    """Returns the text of the file, the same for the same documents."""
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=True)  # PyYAML's own takes ten times as long


def task_name(node: str) -> str:
    """Returns the name of a node's task: Argo takes letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", node.lower()).strip("-")


def _add_parameters(spec: dict[str, Any], parameters: list[Parameter]) -> None:
    root = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for parameter in parameters:
        root[parameter.name] = {
            "parameterType": parameter.kind,
            "defaultValue": parameter.default,
            "description": parameter.description,
        }
        for node in parameter.nodes:
            task = spec["root"]["dag"]["tasks"].get(node)
            if task is None:
                continue
            name = PREFIX + parameter.key
            task.setdefault("inputs", {}).setdefault("parameters", {})[name] = {
                "componentInputParameter": parameter.name
            }
            component = spec["components"][task["componentRef"]["name"]]
            inputs = component.setdefault("inputDefinitions", {}).setdefault("parameters", {})
            inputs[name] = {"parameterType": parameter.kind}


def _of_node(node: str, resources: dict[str, Resources]) -> Resources:
    """Returns what a node gets: its own entry, that of its kind (Teacher for Teacher-1), or the default."""
    for name in (node, re.split(r"[-.]", node)[0], "default"):
        if name in resources:
            return resources[name]
    return Resources()


def _set_limits(spec: dict[str, Any], kubeflow: Kubeflow) -> None:
    for node, task in spec["root"]["dag"]["tasks"].items():
        cached = kubeflow.cache and node.partition(".")[0] not in NEVER_CACHED
        task["cachingOptions"] = {"enableCache": True} if cached else {}
        retries = kubeflow.retries
        if retries.most:
            task["retryPolicy"] = {
                "maxRetryCount": retries.most,
                "backoffDuration": f"{retries.back_off_seconds:g}s",
                "backoffFactor": retries.factor,
                "backoffMaxDuration": f"{retries.most_back_off_seconds:g}s",
            }
        resources = _of_node(node, kubeflow.resources)
        quantities = {
            "cpuRequest": resources.cpu_request,
            "cpuLimit": resources.cpu_limit,
            "memoryRequest": resources.memory_request_gb,
            "memoryLimit": resources.memory_limit_gb,
        }
        limits: dict[str, Any] = {name: value for name, value in quantities.items() if value}
        if resources.gpus:
            limits["accelerator"] = {"type": resources.gpu_type, "count": str(resources.gpus)}
        if limits:
            label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
            spec["deploymentSpec"]["executors"][label]["container"]["resources"] = limits


def _platform(spec: dict[str, Any], kubeflow: Kubeflow) -> dict[str, Any] | None:
    executors = {}
    for node in spec["root"]["dag"]["tasks"]:
        resources = _of_node(node, kubeflow.resources)
        config: dict[str, Any] = {}
        if kubeflow.volumes:
            config["pvcMount"] = [{"constant": volume.claim, "mountPath": volume.mount} for volume in kubeflow.volumes]
        if resources.node_selector:
            config["nodeSelector"] = {"labels": resources.node_selector}
        if config:
            executors[f"exec-{task_name(node)}"] = config
    if not executors:
        return None
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def _renamed(spec: dict[str, Any]) -> dict[str, Any]:
    """Returns the spec with names that Argo takes, in the manner of the KFP SDK: comp-NAME, exec-NAME."""
    tasks = {}
    for node, task in spec["root"]["dag"]["tasks"].items():
        task["taskInfo"] = {"name": task_name(node)}
        task["componentRef"] = {"name": f"comp-{task_name(node)}"}
        if task.get("dependentTasks"):
            task["dependentTasks"] = [task_name(name) for name in task["dependentTasks"]]
        inputs = task.get("inputs", {})
        for source in [*inputs.get("artifacts", {}).values(), *inputs.get("parameters", {}).values()]:
            for producer in (source.get("taskOutputArtifact"), source.get("taskOutputParameter")):
                if producer:
                    producer["producerTask"] = task_name(producer["producerTask"])
        tasks[task_name(node)] = task
    spec["root"]["dag"]["tasks"] = tasks
    executors, labels = {}, {}
    for node, component in spec["components"].items():
        label = f"exec-{task_name(node)}"
        executors[label] = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        labels[f"comp-{task_name(node)}"] = component | {"executorLabel": label}
    spec["components"] = labels
    spec["deploymentSpec"] = {"executors": executors}
    return spec
