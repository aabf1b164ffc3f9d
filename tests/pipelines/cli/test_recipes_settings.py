"""Settings and data of the recipes: what `stillhouse init --recipe` writes, and their DAGs."""

import pandas as pd
import pytest

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import load_settings
from stillhouse.modules.text.sentence_encoder import PACKAGE
from stillhouse.pipelines.cli.init import EXAMPLES, RECIPES, write_recipe, write_task
from stillhouse.pipelines.dag.create import create_pipeline
from stillhouse.pipelines.kubeflow.compile import compile_pipeline
from stillhouse.pipelines.local.check import check_settings
from stillhouse.pipelines.local.paths import local_paths


@pytest.fixture(params=sorted(RECIPES))
def recipe(request):
    return request.param


def test_a_recipe_is_written_with_a_name_and_data_of_its_own(recipe, tmp_path, monkeypatch):
    def write(folder):
        (folder / "here.csv").write_text("x")
        return {"here.csv": 1}

    monkeypatch.setitem(RECIPES, recipe, type(RECIPES[recipe])(RECIPES[recipe].data, write))
    path, data = write_recipe(recipe, "my_own", tmp_path)
    settings = load_settings(path)
    assert settings.name == "my-own"
    assert settings.push.path == "serving/my_own"
    assert settings.data.path.startswith("data/my_own/")
    assert settings.data.transfer in (None, "data/my_own/unlabelled")
    assert "#   stillhouse run my_own.yaml" in path.read_text()
    assert [file.name for file in data.iterdir()] == ["here.csv"]
    assert sorted(file.name for file in data.parent.iterdir()) == ["my_own"]
    with pytest.raises(UserError, match="exists already"):
        write_recipe(recipe, "my_own", tmp_path)


@pytest.mark.parametrize("write", [write_task, lambda *of: write_recipe("noisy-student", *of)])
def test_what_cannot_be_written_is_named_and_nothing_is_left(write, tmp_path):
    (tmp_path / "data").write_text("no folder")
    with pytest.raises(UserError, match=f"^{tmp_path}/data.*: cannot be written: "):
        write("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_few_digits_are_split_without_overlap_and_few_have_a_label(tmp_path):
    path, data = write_recipe("noisy-student", "few", tmp_path)
    labelled = pd.read_csv(data / "labelled" / "train.csv")
    assert labelled["label"].value_counts().to_dict() == dict.fromkeys(range(10), 10)
    unlabelled, evaluated = pd.read_csv(data / "unlabelled" / "unlabelled.csv"), pd.read_csv(data / "labelled/eval.csv")
    assert "label" not in unlabelled
    sizes = [len(labelled), len(unlabelled), len(evaluated)]
    assert sizes == [100, 1097, 400]
    assert load_settings(path).student.distillation.pseudo_labels.rounds == 3


def test_a_recipe_is_a_dag_that_kubeflow_takes_too(recipe, tmp_path):
    settings = load_settings(EXAMPLES / f"{recipe}.yaml")
    dag = {
        node.id: {upstream.id for upstream in node.upstream_nodes}
        for node in create_pipeline(settings, local_paths(settings, tmp_path)).components
    }
    if recipe == "noisy-student":
        assert {"Student-1", "Transform"} <= dag["SoftTargets-2"]
        assert {"SoftTargets-2", "TransferExamples"} <= dag["PseudoLabels-2"]
        assert "PseudoLabels-3" in dag["Student"]
        assert "Student-3" not in dag
    if recipe in ("distilbert", "tmkd"):
        assert "Pretraining.large" in dag["Teacher-1"]
    if recipe == "pretrained-teacher":
        assert {"Teacher-1", "TransferExamples"} <= dag["SoftTargets"]
        assert "SoftTargets" in dag["Student"]
    if recipe == "distilbert":
        assert "Pretraining.large" in dag["Pretraining.small"]
        assert {"Pretraining.small", "SoftTargets"} <= dag["Student"]
        assert "Pretraining.small" not in dag["Baseline"]
    if recipe == "tmkd":
        assert {"SoftTargets", "TransferExamples"} <= dag["Student.pretraining"]
        assert {"Student.pretraining", "SoftTargets"} <= dag["Student"]
        assert "TransferExamples" not in dag["Student"]
    raw = settings.model_dump(by_alias=True)
    raw["kubeflow"]["volumes"] = [{"claim": "data", "mount": "/data"}]
    raw["data"]["path"], raw["push"]["path"] = "/data/examples", "/data/serving"
    raw["data"]["transfer"] = "/data/unlabelled" if settings.data.transfer else None
    spec = compile_pipeline(type(settings).model_validate(raw), "registry.example/stillhouse:1.0")[0]
    tasks = spec["components"]["comp-retrain"]["dag"]["tasks"]
    assert {node.lower().replace(".", "-") for node in dag} - {"examplegen"} <= set(tasks)


@pytest.mark.soak
def test_the_networks_of_a_recipe_fit_together(recipe, monkeypatch):
    if recipe == "pretrained-teacher":
        pytest.importorskip(PACKAGE, reason="its weights are not among the requirements")
    monkeypatch.setattr("stillhouse.pipelines.local.check.check_data", lambda data: None)
    monkeypatch.setattr("stillhouse.pipelines.local.check.check_evaluation_columns", lambda data, evaluation: None)
    monkeypatch.setattr("stillhouse.pipelines.local.check.check_transfer", lambda data: None)
    check_settings(load_settings(EXAMPLES / f"{recipe}.yaml"))


def test_the_pictures_in_the_docs_are_current(monkeypatch):
    docs = EXAMPLES.parents[1] / "docs"
    monkeypatch.syspath_prepend(docs)
    import dag

    page = (docs / "recipes.md").read_text()
    for name, block in dag.blocks().items():
        assert block in page, f"run docs/dag.py: {name} has changed"
