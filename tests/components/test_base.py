"""Parameters in both directions, numbered inputs, and code in every node's cache key."""

import importlib
import pkgutil
from pathlib import Path
from typing import Literal

import pydantic
import pytest
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import Channel, standard_artifacts
from tfx.types.component_spec import ChannelParameter

import stillhouse.components
from stillhouse.components import base
from stillhouse.components.base import CODE, Parameters, declare, fill, numbered_artifacts
from stillhouse.components.blessing.gates import Gate
from stillhouse.modules import code_fingerprint as fingerprints
from stillhouse.modules.settings import load_settings
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.local.paths import local_paths

EXAMPLES = Path(__file__).parents[2] / "pipelines" / "examples"


class SomeParameters(Parameters):
    name: str
    count: int
    kind: Literal["a", "b"]
    weights: list[float]
    gates: list[Gate]
    more: dict[str, list[int]] | None = None


VALUES = SomeParameters(
    name="x",
    count=3,
    kind="b",
    weights=[0.5, 1.0],
    gates=[Gate("teacher", "Ensemble", "auc", False, -0.1)],
    more={"y": [1]},
)


def test_parameters_come_back_with_their_types():
    properties = VALUES.properties()
    assert properties["name"] == "x"
    assert properties["count"] == 3
    assert all(isinstance(value, str | int) for value in properties.values())
    assert SomeParameters.read(properties | {"code": "1234", "other": ""}) == VALUES


def test_a_parameter_of_another_type_is_refused():
    with pytest.raises(pydantic.ValidationError):
        SomeParameters.read(VALUES.properties() | {"kind": '"c"'})
    with pytest.raises(pydantic.ValidationError):
        SomeParameters(**VALUES.model_dump() | {"unknown": 1})


def test_a_spec_has_an_input_for_each_channel_and_the_code():
    class Some(BaseComponent):
        SPEC_CLASS = declare(
            "SomeSpec",
            SomeParameters,
            inputs={"examples": standard_artifacts.Examples},
            optional_inputs={"schema": standard_artifacts.Schema},
            outputs={"model": standard_artifacts.Model},
        )

    models = [Channel(type=standard_artifacts.Model) for _ in range(2)]
    examples = Channel(type=standard_artifacts.Examples)
    spec = fill(Some, VALUES, examples=examples, schema=None, teacher=models)
    assert {"examples": examples, "teacher_1": models[0], "teacher_2": models[1]} == spec.inputs
    assert spec.outputs["model"].type is standard_artifacts.Model
    assert isinstance(spec, Some.SPEC_CLASS)
    assert isinstance(type(spec).INPUTS["teacher_2"], ChannelParameter)
    assert spec.exec_properties[CODE] == fingerprints.code_fingerprint(__name__)
    assert numbered_artifacts({"teacher_2": ["b"], "teacher_1": ["a"], "examples": ["c"]}, "teacher") == ["a", "b"]


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """Builds the pipeline of a recipe with nearly all components; returns its nodes of ours by their ids."""

    def build():
        settings = load_settings(EXAMPLES / "noisy-student.yaml")
        pipeline = create_pipeline(settings, local_paths(settings, tmp_path))
        return {node.id: node for node in pipeline.components if type(node).__module__.startswith("stillhouse.")}

    monkeypatch.chdir(EXAMPLES.parents[1])
    return build


def test_a_change_of_any_executor_of_ours_changes_the_cache_key_of_its_nodes(nodes, monkeypatch):
    before = nodes()
    assert {"Blessing", "Pusher", "Evaluator", "ExampleValidator", "LastPushed", "Student"} <= set(before)
    executors = {node.executor_spec.executor_class.__module__ for node in before.values()}
    read = fingerprints._parsed
    monkeypatch.setattr(
        fingerprints,
        "_parsed",
        lambda text, without: read(text + b"\nCHANGED = True\n" if b"class Executor" in text else text, without),
    )
    after = nodes()
    assert len(executors) >= 10
    for name, node in before.items():
        assert node.exec_properties[CODE] != after[name].exec_properties[CODE], name


def test_our_metrics_are_in_the_cache_key_of_an_evaluator(nodes, monkeypatch):
    before = nodes()["Evaluator"].exec_properties[CODE]
    read = fingerprints._parsed
    changed = b"class MeanReciprocalRank"
    monkeypatch.setattr(
        fingerprints, "_parsed", lambda text, without: read(text + b"\nX = 1\n" if changed in text else text, without)
    )
    assert nodes()["Evaluator"].exec_properties[CODE] != before


def test_every_component_of_ours_puts_its_code_into_its_nodes():
    """Whatever makes the spec: `fill`, or a stock constructor followed by `with_own_code`."""
    for module in pkgutil.iter_modules(stillhouse.components.__path__):
        if not module.ispkg:
            continue
        package = importlib.import_module(f"stillhouse.components.{module.name}.component")
        source = Path(package.__file__).read_text()
        assert any(name in source for name in ("fill(", "with_own_code(self)", "fingerprint_of(type(self))")), (
            module.name
        )
    assert base.CODE == "code"
