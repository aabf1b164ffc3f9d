"""Lets a run on Kubeflow end early: all after ExampleGen becomes a part of the pipeline that has a condition.

  examplegen -> comparedata -> retrain (if changed): statisticsgen ... report -> rememberdata

It is what the KFP SDK makes of `dsl.If`: a task with a trigger policy whose component is a DAG.
"""

import hashlib
import json
from typing import Any

from stillhouse.pipelines.kubeflow.changes import CHANGED, FINGERPRINT, ONLY_IF_CHANGED

FIRST, COMPARE, REMEMBER, LAST = "ExampleGen", "CompareData", "RememberData", "Report"
TASKS = (COMPARE, REMEMBER)  # that are added here
RETRAIN = "retrain"
CHANNEL = "pipelinechannel--"  # how the KFP SDK names what goes into a DAG
STRING, BOOLEAN = "STRING", "BOOLEAN"


def add_tasks(spec: dict[str, Any], image: str, commit: str) -> None:
    """Adds the tasks CompareData and RememberData and the parameter `only_if_changed` to a spec as TFX compiles it.

    A commit that changes nothing else in the spec, where it stands for the report, is no change.
    """
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    text = json.dumps(spec, sort_keys=True)
    content = hashlib.sha256((text.replace(commit, "") if commit else text).encode()).hexdigest()
    constants = {"pipeline": spec["pipelineInfo"]["name"], "content": content}
    parameters[ONLY_IF_CHANGED] = {
        "parameterType": BOOLEAN,
        "defaultValue": False,
        "description": "Ends early if data, pipeline and parameters are those of the last run.",
    }
    examples = {"taskOutputArtifact": {"producerTask": FIRST, "outputArtifactKey": "examples"}}
    _add(
        spec,
        COMPARE,
        image,
        artifacts={"examples": examples},
        parameters={name: {"componentInputParameter": name} for name in parameters} | _constants(constants),
        outputs=(CHANGED, FINGERPRINT),
        after=FIRST,
    )
    fingerprint = {"taskOutputParameter": {"producerTask": COMPARE, "outputParameterKey": FINGERPRINT}}
    _add(
        spec,
        REMEMBER,
        image,
        artifacts={},
        parameters={"push_path": {"componentInputParameter": "push_path"}, FINGERPRINT: fingerprint}
        | _constants({"pipeline": constants["pipeline"]}),
        outputs=(),
        after=LAST,
    )


def _constants(values: dict[str, str]) -> dict[str, Any]:
    return {name: {"runtimeValue": {"constant": value}} for name, value in values.items()}


def _add(
    spec: dict[str, Any],
    node: str,
    image: str,
    artifacts: dict[str, Any],
    parameters: dict[str, Any],
    outputs: tuple[str, ...],
    after: str,
) -> None:
    root_parameters = spec["root"]["inputDefinitions"]["parameters"]
    first_outputs = spec["components"][FIRST]["outputDefinitions"]["artifacts"]
    inputs: dict[str, Any] = {
        "parameters": {
            name: {
                "parameterType": root_parameters.get(source.get("componentInputParameter"), {}).get(
                    "parameterType", STRING
                )
            }
            for name, source in parameters.items()
        }
    }
    if artifacts:
        inputs["artifacts"] = {name: {"artifactType": first_outputs[name]["artifactType"]} for name in artifacts}
    label = f"{node}_executor"
    spec["components"][node] = {"executorLabel": label, "inputDefinitions": inputs}
    if outputs:
        kinds = {name: {"parameterType": STRING} for name in outputs}
        spec["components"][node]["outputDefinitions"] = {"parameters": kinds}
    spec["deploymentSpec"]["executors"][label] = {
        "container": {
            "image": image,
            "command": ["python", "-m", "stillhouse.pipelines.kubeflow.changes", node.lower()],
            "args": ["{{$}}"],
        }
    }
    spec["root"]["dag"]["tasks"][node] = {
        "componentRef": {"name": node},
        "inputs": {"parameters": parameters} | ({"artifacts": artifacts} if artifacts else {}),
        "dependentTasks": [after],
    }


def nest(spec: dict[str, Any], first: str, compare: str) -> None:
    """Puts all tasks but two, whose names are given, into a DAG of its own that runs if data have changed."""
    tasks = spec["root"]["dag"]["tasks"]
    outer = {name: tasks.pop(name) for name in (first, compare)}
    artifacts: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    definitions: dict[str, Any] = {"artifacts": {}, "parameters": {}}
    root = spec["root"]["inputDefinitions"]["parameters"]

    def outputs_of(task: str, kind: str) -> dict[str, Any]:
        return spec["components"][outer[task]["componentRef"]["name"]]["outputDefinitions"][kind]

    def parameter_from(source: dict[str, Any]) -> dict[str, Any]:
        """Returns the source of a parameter as it is inside of the DAG, and lets it in."""
        if "componentInputParameter" in source:
            key = source["componentInputParameter"]
            name, kind = CHANNEL + key, root[key]["parameterType"]
        elif "taskOutputParameter" in source:
            producer = source["taskOutputParameter"]
            name = f"{CHANNEL}{producer['producerTask']}-{producer['outputParameterKey']}"
            kind = outputs_of(producer["producerTask"], "parameters")[producer["outputParameterKey"]]["parameterType"]
        else:
            return source
        parameters[name], definitions["parameters"][name] = source, {"parameterType": kind}
        return {"componentInputParameter": name}

    for task in tasks.values():
        inputs = task.get("inputs", {})
        for key, source in inputs.get("artifacts", {}).items():
            producer = source["taskOutputArtifact"]
            if producer["producerTask"] in outer:
                name = f"{CHANNEL}{producer['producerTask']}-{producer['outputArtifactKey']}"
                kind = outputs_of(producer["producerTask"], "artifacts")[producer["outputArtifactKey"]]["artifactType"]
                artifacts[name], definitions["artifacts"][name] = source, {"artifactType": kind}
                inputs["artifacts"][key] = {"componentInputArtifact": name}
        for key, source in inputs.get("parameters", {}).items():
            inputs["parameters"][key] = parameter_from(source)
        task["dependentTasks"] = [name for name in task.get("dependentTasks", []) if name not in outer]
    changed = {"taskOutputParameter": {"producerTask": compare, "outputParameterKey": CHANGED}}
    condition = parameter_from(changed)["componentInputParameter"]
    spec["components"][f"comp-{RETRAIN}"] = {"dag": {"tasks": tasks}, "inputDefinitions": definitions}
    outer[RETRAIN] = {
        "taskInfo": {"name": RETRAIN},
        "componentRef": {"name": f"comp-{RETRAIN}"},
        "dependentTasks": [first, compare],
        "inputs": {"artifacts": artifacts, "parameters": parameters},
        "triggerPolicy": {"condition": f"inputs.parameter_values['{condition}'] == 'true'"},
    }
    spec["root"]["dag"]["tasks"] = outer
