"""Settings -> PipelineSpec (schema 2.1.0) for the backend of open-source Kubeflow Pipelines.

TFX's own compiler makes the spec; what that backend refuses or ignores is changed here, in the open: names of tasks,
the ExampleGen driver's hook, defaults for parameters, retries, caching, resources, the Kubernetes part, and the
condition under which a run goes on after ExampleGen.
"""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

import yaml
from tfx.components import Trainer, Transform
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig

from stillhouse.components.distillation_trainer import DistillationTrainer
from stillhouse.components.soft_targets import SoftTargets
from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Kubeflow, Resources, Settings
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.kubeflow import only_if_changed
from stillhouse.pipelines.kubeflow.check import refuse_unfit
from stillhouse.pipelines.kubeflow.earlier_results import folder_of
from stillhouse.pipelines.kubeflow.object_storage import environment_of, secret_of
from stillhouse.pipelines.kubeflow.parameters import PREFIX, Parameter, parameters_of
from stillhouse.pipelines.kubeflow.paths import kubeflow_paths

ENTRY_POINT = ("python", "-m", "stillhouse.pipelines.kubeflow.entrypoint")

DEFAULT = "default"  # resources of all nodes that have none of their own

# Nodes by their kind whose outputs follow from code, parameters, inputs and data alone, and which earlier runs may have
# made. The others look at what is pushed, push, or report the run that they are in.
REUSABLE = (
    "ExampleGen",
    "NewestSpan",
    "EarlierSpans",
    "TransferExampleGen",
    "StatisticsGen",
    "NewestStatistics",
    "EarlierStatistics",
    "TransferStatistics",
    "SchemaGen",
    "ExampleValidator",
    "Drift",
    "Skew",
    "Transform",
    "TransferExamples",
    "Pretraining",
    "Teacher",
    "Baseline",
    "SoftTargets",
    "PseudoLabels",
    "Student",
    "DarkKnowledge",
    "Ensemble",
    "Evaluator",
    "Predictions",
    "Blessing",
    "ServingCheck",
)


def compile_pipeline(settings: Settings, image: str) -> list[dict[str, Any]]:
    """Returns the documents of the pipeline's YAML file: the PipelineSpec, and the Kubernetes part if there is one.

    Raises:
      UserError: the settings name something that a cluster cannot see or Kubeflow does not run.
    """
    paths = kubeflow_paths(settings)
    pipeline = create_pipeline(settings, paths)
    nodes = [node.id for node in pipeline.components]
    _check_names(nodes, settings)
    config = KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(ENTRY_POINT), use_pipeline_spec_2_1=True
    )
    spec = KubeflowV2DagRunner(config).run(pipeline, write_out=False)["pipelineSpec"]
    parameters = parameters_of(settings, paths.data_path, paths.push_path)
    _add_parameters(spec, parameters)
    for node in pipeline.components:
        task = spec["root"]["dag"]["tasks"][node.id]
        component = spec["components"][task["componentRef"]["name"]]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        # Hooks are ignored; our entry point runs the driver.
        container.pop("lifecycle", None)
        outputs = sorted(component.get("outputDefinitions", {}).get("artifacts", {}))
        own = ["--task", task_name(node.id), "--outputs", json.dumps(outputs), *_reuse(node, settings)]
        if same := _pass_once(task, component):
            own += ["--same", json.dumps(same, sort_keys=True)]
        container["args"] = [*own, *container["args"]]
    only_if_changed.add_tasks(spec, image, paths.commit)
    _set_limits(spec, settings.kubeflow)
    _set_environment(spec, settings.kubeflow)
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


def _pass_once(task: dict[str, Any], component: dict[str, Any]) -> dict[str, str]:
    """Leaves out inputs that are the artifact of another one, and returns that one's name for each.

    MLMD has one event of an artifact and an execution; our entry point gives the component all of its inputs.
    """
    artifacts = task.get("inputs", {}).get("artifacts", {})
    first: dict[str, str] = {}
    same = {}
    for name in sorted(artifacts):
        source = json.dumps(artifacts[name], sort_keys=True)
        if first.setdefault(source, name) != name:
            same[name] = first[source]
    for name in same:
        del artifacts[name], component["inputDefinitions"]["artifacts"][name]
    return same


def _reuse(node: BaseNode, settings: Settings) -> list[str]:
    """Returns the arguments by which a task looks for what an earlier run has left of it; none if it must not."""
    kubeflow = settings.kubeflow
    if not (kubeflow.cache and kubeflow.storage) or _kind(node.id) not in REUSABLE:
        return []
    omitted: list[str] = []
    if isinstance(node, Transform):
        omitted = sorted(settings.builders())
    elif isinstance(node, Trainer | DistillationTrainer):
        builder = json.loads(node.exec_properties["custom_config"])["builder"]
        omitted = ["preprocessing_fn", *sorted(settings.builders() - {builder})]
    elif isinstance(node, SoftTargets):  # of the task only augment
        omitted = ["preprocessing_fn", *sorted(settings.builders())]
    folder = folder_of(kubeflow.pipeline_root, settings.name, task_name(node.id))
    return ["--results", folder, "--omitted", json.dumps(omitted)]


def _check_names(nodes: Iterable[str], settings: Settings) -> None:
    """Refuses nodes that would be one task, and resources of nodes that the pipeline does not have."""
    node_of: dict[str, str] = {}
    for node in nodes:
        other = node_of.setdefault(task_name(node), node)
        if other != node:
            key = "pretraining: " if {_own_name(node), _own_name(other)} <= set(settings.pretraining) else ""
            raise UserError(
                f"{key}found {_own_name(other)!r} and {_own_name(node)!r}, which are one task on Kubeflow "
                f"({task_name(node)}): capitals and underscores do not count there; rename one"
            )
    kinds = {_kind(node) for node in node_of.values()}
    for name in settings.kubeflow.resources:
        if name not in {*node_of.values(), *kinds, DEFAULT, *only_if_changed.TASKS}:
            near = difflib.get_close_matches(name, {*node_of.values(), *kinds}, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"kubeflow.resources: found {name!r}, which is no node of this pipeline{hint} (nodes: "
                f"{', '.join(node_of.values())}; or a kind of node, such as Teacher, or {DEFAULT})"
            )


def _own_name(node: str) -> str:
    """Returns what the user has called a node: behind Pretraining, for one."""
    return node.partition(".")[2] or node


def _kind(node: str) -> str:
    return re.split(r"[-.]", node)[0]


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
    """Returns the resources of a node: its own, those of Teacher-1 for Teacher-1.fold-2, its kind's, or the default."""
    for name in (node, node.partition(".")[0], _kind(node), DEFAULT):
        if name in resources:
            return resources[name]
    return Resources()


def _set_limits(spec: dict[str, Any], kubeflow: Kubeflow) -> None:
    for node, task in spec["root"]["dag"]["tasks"].items():
        # Kubeflow's own cache never takes anything from another run, as its key holds the ids of the inputs.
        task["cachingOptions"] = {}
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


def _set_environment(spec: dict[str, Any], kubeflow: Kubeflow) -> None:
    """Tells the containers where the storage is."""
    variables = environment_of(kubeflow.storage) if kubeflow.storage else {}
    if not variables:
        return
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["env"] = [{"name": name, "value": value} for name, value in variables.items()]


def _secrets(kubeflow: Kubeflow) -> list[dict[str, Any]]:
    """Returns the Secrets of every container as the platform spec has them."""
    secrets = [(secret.name, secret.variables) for secret in kubeflow.secrets]
    if kubeflow.storage and (of_storage := secret_of(kubeflow.storage)):
        secrets.append(of_storage)
    return [
        {
            "secretName": name,
            "keyToEnv": [{"secretKey": key, "envVar": variable} for variable, key in variables.items()],
        }
        for name, variables in secrets
    ]


def _platform(spec: dict[str, Any], kubeflow: Kubeflow) -> dict[str, Any] | None:
    executors, secrets = {}, _secrets(kubeflow)
    for node in spec["root"]["dag"]["tasks"]:
        resources = _of_node(node, kubeflow.resources)
        config: dict[str, Any] = {}
        if kubeflow.volumes:
            config["pvcMount"] = [{"constant": volume.claim, "mountPath": volume.mount} for volume in kubeflow.volumes]
        if secrets:
            config["secretAsEnv"] = secrets
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
