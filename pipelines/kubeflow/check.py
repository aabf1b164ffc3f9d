"""What the backend of open-source Kubeflow Pipelines refuses, or silently ignores, in a PipelineSpec.

From kubeflow/pipelines, backend/src/apiserver/template and backend/src/v2 (argocompiler, driver).
"""

import json
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from stillhouse.modules.errors import UserError

SCHEMA_VERSION = "2.1.0"
PIPELINE_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,126}[a-z0-9])?$")
TASK_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
# What fits into a custom resource of Kubernetes, in which the backend keeps it.
MAX_BYTES = 1_000_000
# What Linux takes as one argument (MAX_ARG_STRLEN). On every version of the backend the driver's and the launcher's
# arguments are a component, a container and an ExecutorInput, each as one.
MAX_ARGUMENT_BYTES = 131_072
# An artifact in an ExecutorInput without its type: URI, session of the object store, metadata. Measured: at most 1,150.
ARTIFACT_BYTES = 1_500


def refuse_unfit(documents: list[dict[str, Any]]) -> None:
    """Checks the documents of a pipeline's file.

    Raises:
      UserError: one line per reason for which the backend would refuse or misunderstand them.
    """
    reasons = list(reasons_against(documents))
    if reasons:
        raise UserError("Kubeflow Pipelines would not run this: " + "; ".join(reasons))


def reasons_against(documents: list[dict[str, Any]]) -> Iterator[str]:
    """Gives the reasons why the backend would not run the documents as they are meant."""
    spec, *platform_specs = documents
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        for executor in spec.get("deploymentSpec", {}).get("executors", {}).values():
            json_format.ParseDict(executor, pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec())
    except json_format.ParseError as error:
        yield f"not a PipelineSpec: {error}"
        return
    if spec.get("schemaVersion") != SCHEMA_VERSION:
        yield f"schemaVersion is {spec.get('schemaVersion')!r}; only {SCHEMA_VERSION} is taken"
    name = spec.get("pipelineInfo", {}).get("name", "")
    if not PIPELINE_NAME.match(name):
        yield f"the pipeline's name {name!r} is not made of lower-case letters, digits and hyphens, 128 at the most"
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    for label, executor in executors.items():
        yield from _reasons_against_executor(label, executor)
    yield from _reasons_against_tasks(spec, spec.get("root", {}), executors)
    for document in platform_specs:
        if set(document) != {"platforms"} or set(document["platforms"]) != {"kubernetes"}:
            yield "the second document is not the Kubernetes platform spec"
            continue
        for label in document["platforms"]["kubernetes"]["deploymentSpec"]["executors"]:
            if label not in executors:
                yield f"the platform spec has an executor {label!r} that the pipeline has not"
    size = len(json_format.MessageToJson(json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())))
    if size > MAX_BYTES:
        yield f"found {size:,} bytes; expected at most {MAX_BYTES:,}, which Kubernetes keeps"


def _reasons_against_executor(label: str, executor: dict[str, Any]) -> Iterator[str]:
    kind = next(iter(executor), "nothing")
    if kind not in ("container", "importer"):
        yield f"executor {label!r}: {kind} executors are not implemented"
        return
    container = executor.get("container", {})
    if "lifecycle" in container:
        yield f"executor {label!r}: lifecycle.preCacheCheck is ignored"
    if kind == "container" and not container.get("image"):
        yield f"executor {label!r}: it has no image"
    for value in _values(executor):
        if isinstance(value, dict) and "runtimeParameter" in value:
            yield f"executor {label!r}: the runtime parameter {value['runtimeParameter']!r} is not filled in"


def _reasons_against_sizes(
    name: str, task: dict[str, Any], component: dict[str, Any], executor: dict[str, Any]
) -> Iterator[str]:
    """Gives the arguments that are too long for a process to start."""
    inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
    artifacts = [*inputs.get("artifacts", {}).values(), *outputs.get("artifacts", {}).values()]
    values = {
        key: source.get("runtimeValue", {}).get("constant")
        for key, source in task.get("inputs", {}).get("parameters", {}).items()
    }
    sizes = {
        "the component": _bytes_of(component),
        "the container": max(_bytes_of(executor), *(len(part.encode()) for part in _arguments(executor)), 0),
        "the executor input": _bytes_of(values)
        + sum(ARTIFACT_BYTES + _bytes_of(artifact["artifactType"]) for artifact in artifacts),
    }
    for argument, size in sizes.items():
        if size > MAX_ARGUMENT_BYTES:
            longest = max(values, key=lambda key: _bytes_of(values[key]), default=None)
            hint = f"; its longest parameter is {longest!r}, {_bytes_of(values[longest]):,} bytes" if longest else ""
            yield (
                f"task {name!r}: {argument} is an argument of {size:,} bytes; Linux takes at most "
                f"{MAX_ARGUMENT_BYTES:,}{hint}"
            )


def _bytes_of(content: Any) -> int:
    return len(json.dumps(content, ensure_ascii=False).encode())


def _arguments(executor: dict[str, Any]) -> list[str]:
    container = executor.get("container", {})
    return [*container.get("command", []), *container.get("args", [])]


def _reasons_against_twice(name: str, task: dict[str, Any]) -> Iterator[str]:
    """Gives the artifacts that a task gets twice: MLMD has one event of an artifact and an execution."""
    first: dict[tuple[str, str], str] = {}
    for key, source in task.get("inputs", {}).get("artifacts", {}).items():
        producer = source.get("taskOutputArtifact", {})
        artifact = (
            source.get("componentInputArtifact") or producer.get("producerTask", ""),
            producer.get("outputArtifactKey", ""),
        )
        other = first.setdefault(artifact, key)
        if other != key:
            yield f"task {name!r}: its inputs {other!r} and {key!r} are the same artifact"


def _values(tree: Any) -> Iterator[Any]:
    yield tree
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for child in children:
        yield from _values(child)


def _reasons_against_tasks(spec: dict[str, Any], dag: dict[str, Any], executors: dict[str, Any]) -> Iterator[str]:
    """Gives the reasons against the tasks of a DAG, and of the DAGs in it; `dag` is a component, or the root."""
    tasks, dag_inputs = dag.get("dag", {}).get("tasks", {}), dag.get("inputDefinitions", {})
    if not tasks:
        yield "it has no tasks"
    components = spec.get("components", {})

    def outputs_of(task: str, kind: str) -> dict[str, Any]:
        component = components.get(tasks.get(task, {}).get("componentRef", {}).get("name"), {})
        return component.get("outputDefinitions", {}).get(kind, {})

    for name, task in tasks.items():
        if not TASK_NAME.match(name):
            yield f"task {name!r}: names are lower-case letters, digits and hyphens, 63 at the most"
        component = components.get(task.get("componentRef", {}).get("name"))
        if component is None:
            yield f"task {name!r}: its component is missing"
            continue
        if "dag" in component:
            yield from _reasons_against_sizes(name, task, component, {})
            yield from _reasons_against_tasks(spec, component, executors)
        elif component.get("executorLabel") not in executors:
            yield f"task {name!r}: its executor is missing"
        else:
            yield from _reasons_against_sizes(name, task, component, executors[component["executorLabel"]])
        yield from _reasons_against_twice(name, task)
        definitions = component.get("inputDefinitions", {}).get("parameters", {})
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if key not in definitions:
                yield f"task {name!r}: its component has no parameter {key!r}"
            if "runtimeParameter" in source.get("runtimeValue", {}):
                yield f"task {name!r}: the parameter {key!r} is a runtime parameter, which is not taken"
            parameter = source.get("componentInputParameter")
            if parameter is not None and parameter not in dag_inputs.get("parameters", {}):
                yield f"task {name!r}: the pipeline has no parameter {parameter!r}"
            producer = source.get("taskOutputParameter")
            if producer and producer["outputParameterKey"] not in outputs_of(producer["producerTask"], "parameters"):
                yield f"task {name!r}: nothing makes its parameter {key!r}"
        for key, source in task.get("inputs", {}).get("artifacts", {}).items():
            producer = source.get("taskOutputArtifact", {})
            made = outputs_of(producer.get("producerTask"), "artifacts")
            known = source.get("componentInputArtifact") in dag_inputs.get("artifacts", {})
            if not known and producer.get("outputArtifactKey") not in made:
                yield f"task {name!r}: nothing makes its input {key!r}"
        for dependency in task.get("dependentTasks", []):
            if dependency not in tasks:
                yield f"task {name!r}: it waits for {dependency!r}, which is missing"
        condition = task.get("triggerPolicy", {}).get("condition", "")
        for parameter in re.findall(r"inputs\.parameter_values\['([^']*)'\]", condition):
            if parameter not in task.get("inputs", {}).get("parameters", {}):
                yield f"task {name!r}: its condition reads {parameter!r}, which is not an input of the task"
    try:
        TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()}).prepare()
    except CycleError as error:
        yield f"tasks wait for each other: {' -> '.join(error.args[1])}"
