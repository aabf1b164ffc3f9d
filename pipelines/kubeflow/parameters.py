"""What a run or a schedule may change without compiling again: parameters, with the settings as defaults.

A parameter reaches a task as an input named set_KEY; the entry point puts it into the execution property that it is
meant for, with `apply`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillhouse.modules.settings import Settings, Training
from stillhouse.pipelines.dag.create import student_names, teacher_names
from stillhouse.pipelines.dag.folds import fold_names

PREFIX = "set_"
NEWEST = -1  # the span that is not named
SPAN = "span"

STRING, INTEGER = "STRING", "NUMBER_INTEGER"


@dataclass(frozen=True)
class Parameter:
    """A parameter of the pipeline."""

    name: str
    kind: str
    default: str | int
    description: str
    nodes: tuple[str, ...]  # ids of the nodes that it reaches, if the pipeline has them
    key: str  # what it sets there
    setting: str = ""  # path of the key of the settings that it replaces; "": none


def parameters_of(settings: Settings, data_path: str, push_path: str) -> list[Parameter]:
    """Returns the parameters of a pipeline."""
    starts = [f"WarmStart.{name}" for name in (*teacher_names(settings), "Student")]
    readers, pushers = ("ExampleGen", "NewestSpan", "EarlierSpans"), ("Pusher", "LastPushed", *starts)
    parameters = [
        Parameter("data_path", STRING, data_path, "Folder of the data.", readers, "data_path", "data.path"),
        Parameter("push_path", STRING, push_path, "Folder to push to.", pushers, "push_path", "push.path"),
    ]
    if "{SPAN}" in data_path:
        text = f"Span of the data; {NEWEST}: the newest."
        parameters.append(Parameter(SPAN, INTEGER, NEWEST, text, readers, SPAN))
    entries = [entry for entry, teacher in enumerate(settings.teachers) for _ in range(teacher.copies)]
    trained: dict[str, tuple[Training, tuple[str, ...], str]] = {
        f"teacher_{number}": (teacher, (name, *fold_names(settings, name)), f"teachers.{entry}")
        for number, (name, teacher, entry) in enumerate(
            zip(teacher_names(settings), settings.all_teachers(), entries, strict=True), start=1
        )
        if not teacher.saved_model
    }
    *rounds, student = student_names(settings)
    trained["student"] = settings.student, (student, "Baseline"), "student"
    for prefix, (training, nodes, section) in trained.items():
        for key in ("epochs", "seed"):
            own = (*rounds, *nodes) if prefix == "student" and key == "epochs" else nodes
            if prefix == "student" and key == "seed" and settings.student.has_cached_views():
                own = (*own, "SoftTargets")  # their views are a function of it
            if getattr(settings.baseline, key) is not None:
                own = tuple(node for node in own if node != "Baseline")
            text = f"{key} of {', '.join(own)}."
            parameters.append(
                Parameter(f"{prefix}_{key}", INTEGER, getattr(training, key), text, own, key, f"{section}.{key}")
            )
    return parameters


def setting_keys(settings: Settings) -> dict[str, str]:
    """Returns the key paths of the settings that parameters replace, by the parameters' names."""
    parameters = parameters_of(settings, settings.data.path, settings.push.path)
    return {parameter.name: parameter.setting for parameter in parameters if parameter.setting}


def apply(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a task's execution properties, with the parameters that were among them put where they belong.

    Args:
      inputs: execution properties and inputs named set_KEY, by their names.
    """
    properties = {name: value for name, value in inputs.items() if not name.startswith(PREFIX)}
    for name, value in inputs.items():
        key = name.removeprefix(PREFIX)
        if key == name:
            continue
        if key in ("epochs", "seed"):
            section = "custom_config" if "custom_config" in properties else "views"
            config = json.loads(properties[section])
            config[key] = int(value)
            properties[section] = json.dumps(config)
        elif key == "push_path" and "push_destination" in properties:
            destination = json.loads(properties["push_destination"])
            destination["filesystem"] = {"base_directory": value}
            properties["push_destination"] = json.dumps(destination)
        elif key == "data_path":
            properties |= _data(properties, value)
        elif key == "span":
            if int(value) != NEWEST:
                numbers = {"start_span_number": int(value), "end_span_number": int(value)}
                properties["range_config"] = json.dumps({"static_range": numbers})
        else:
            properties[key] = value
    return properties


def _data(properties: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns input_base and input_config of an ExampleGen over `path`, which may hold {SPAN} and {VERSION}.

    The patterns of the splits keep what stood behind the old path.
    """
    from stillhouse.pipelines.dag.example_gen import base_and_prefix

    config = json.loads(properties["input_config"])
    base, prefix = base_and_prefix(path)
    for split in config["splits"]:
        split["pattern"] = prefix + split["pattern"].rpartition("/")[2]
    return {"input_base": base, "input_config": json.dumps(config)}
