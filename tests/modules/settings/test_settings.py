import json
import math
import re
import subprocess
import sys
from pathlib import Path

import blobs
import pytest
import yaml

from stillhouse.modules.errors import UserError
from stillhouse.modules.settings import Settings, Shard, load_settings, parse_settings
from stillhouse.modules.settings.table import settings_tables

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = sorted((REPOSITORY / "pipelines" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_literate(path):
    assert load_settings(path).name == path.stem
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"stillhouse run pipelines/examples/{path.name}" in "\n".join(comment)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_a_run_writes_down_of_its_settings_gives_the_same_settings(path):
    settings = load_settings(path)
    assert parse_settings(json.loads(settings.model_dump_json(by_alias=True)), "x.yaml") == settings


def refuse(raw):
    with pytest.raises(UserError) as caught:
        parse_settings(raw, "x.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"studnet": {}}, "studnet: unknown key; did you mean student? (allowed here: name, task, head,"),
        ({"student": {"epoks": 3}}, "student.epoks: unknown key; did you mean epochs?"),
        ({"teachers": [{"epochs": "ten"}]}, "teachers[0].epochs: found 'ten'; expected a valid integer"),
        (
            {"student": {"distillation": {"alpha": 1.5}}},
            "student.distillation.alpha: found 1.5; expected a value between 0 and 1",
        ),
        (
            {"student": {"distillation": {"temperature": 0}}},
            "student.distillation.temperature: found 0; expected a value greater than 0",
        ),
        ({"teachers": []}, "teachers: found []; expected at least 1 item (Teachers"),
        (
            {"evaluation": {"gates": {"teacher": {"max_drop": 3.0}}}},
            "evaluation.gates.teacher.max_drop: found 3, but SparseCategoricalAccuracy is between 0 and 1",
        ),
        (
            {"evaluation": {"gates": {"pushed": {"max_drop_per_slice": 1.0}}}},
            "evaluation.gates.pushed.max_drop_per_slice: found 1, but",
        ),
        (
            {"evaluation": {"gates": {"baseline": {"min_gain": -1.0}}}},
            "evaluation.gates.baseline.min_gain: found -1, but",
        ),
        (
            {"evaluation": {"gates": {"teacher": {"max_drop": math.inf}}}},
            "evaluation.gates.teacher.max_drop: found inf; expected a finite number",
        ),
        (
            {"evaluation": {"gates": {"baseline": {"min_gain": math.nan}}}},
            "evaluation.gates.baseline.min_gain: found nan; expected a finite number",
        ),
        ({"student": {"distillation": {"alpha": math.nan}}}, "student.distillation.alpha.start: found nan"),
        ({"student": {"distillation": {"temperature": math.inf}}}, "student.distillation.temperature.start: found inf"),
        ({"student": {"optimizer": {"learning_rate": math.nan}}}, "student.optimizer.learning_rate: found nan"),
        ({"teachers": [{"weight": math.inf}]}, "teachers[0].weight: found inf"),
        ({"evaluation": {"slices": [[]]}}, "evaluation.slices[0]"),
        ({"evaluation": {"slices": ["tree", ["tree"]]}}, "evaluation.slices: found tree twice"),
        ({"evaluation": {"slices": [["a", "a"]]}}, "evaluation.slices: found a, a twice"),
        (
            {"student": {"omit_classes": [-1]}},
            "student.omit_classes[0]: found -1; expected a value greater than or equal to 0",
        ),
        ({"student": {"omit_classes": [1, 1]}}, "student.omit_classes: found [1, 1]; expected"),
        ({"push": {"path": ""}}, "push.path: found ''"),
        ({"data": {"path": "data", "label": ""}}, "data.label: found ''"),
        (
            {"evaluation": {"gates": {"fidelity": {}}}},
            "evaluation.gates.fidelity: found {}; expected at least one limit: min_agreement, min_agreement_per_slice",
        ),
        (
            {"head": "regression", "evaluation": {"slices": ["tree"]}},
            "evaluation.gates.teacher.max_drop_per_slice: slices of a regression need a limit",
        ),
        (
            {"ingestion": {"cache": "tape"}},
            "ingestion.cache: found 'tape'; expected 'auto', 'memory', 'disk' or 'none'",
        ),
        ({"ingestion": {"memory_share": 0}}, "ingestion.memory_share: found 0; expected a value greater than 0"),
        (
            {"ingestion": {"service_workers": 2}},
            "ingestion.service_workers: not valid with deterministic: true (batches arrive in any order); set false",
        ),
        (
            {"ingestion": {"service_workers": 2, "deterministic": False, "cache": "memory"}},
            "ingestion.service_workers: not valid with cache: memory (they read files); set cache: disk or none",
        ),
        (
            {
                "ingestion": {"service_workers": 2, "deterministic": False},
                "student": {"strategy": {"name": "parameter_server"}},
            },
            "ingestion.service_workers: not supported with parameter_server; set 0",
        ),
        (
            {"student": {"strategy": {"name": "parameter_server"}, "distillation": {"targets": "online"}}},
            "student.distillation.targets: online is not valid with parameter_server (TensorFlow loads no teacher onto",
        ),
        (
            {"student": {"distillation": {"pseudo_labels": {}}}},
            "student.distillation.pseudo_labels: alpha and temperature must be 1: these targets include the labels",
        ),
        (
            {
                "student": {
                    "distillation": {"pseudo_labels": {}, "alpha": 1, "temperature": 1, "head_per_teacher": True}
                }
            },
            "student.distillation.pseudo_labels: not valid with head_per_teacher; remove one of them",
        ),
        (
            {"student": {"distillation": {"pseudo_labels": {}, "alpha": 1, "temperature": 1}}},
            "student.distillation.pseudo_labels: needs unlabelled examples; set data.transfer",
        ),
        (
            {"student": {"distillation": {"pretraining": {}}}},
            "student.distillation.pretraining: needs unlabelled examples; set data.transfer",
        ),
        (
            {"student": {"distillation": {"folds": 5, "targets": "online"}}},
            "student.distillation.folds: not valid with targets: online; set targets: cached or remove folds",
        ),
        (
            {"student": {"distillation": {"targets_top": 5, "targets": "online"}}},
            "student.distillation.targets_top: not valid with targets: online; set targets: cached or remove",
        ),
        (
            {"student": {"distillation": {"pseudo_labels": {}, "alpha": 1, "temperature": 1, "folds": 5}}},
            "student.distillation.pseudo_labels: not valid with folds; remove one of them",
        ),
        ({"student": {"distillation": {"folds": 1}}}, "student.distillation.folds: found 1; expected a value greater"),
        (
            {"teachers": [{}, {"saved_model": "m"}], "student": {"distillation": {"folds": 5}}},
            "student.distillation.folds: not valid with teachers[1].saved_model (it cannot be trained without a fold)",
        ),
        (
            {"teachers": [{"copies": 2, "shard_copies": True}], "student": {"distillation": {"folds": 5}}},
            "student.distillation.folds: not valid with teachers[0].shard_copies (each copy sees only its own part)",
        ),
        (
            {"teachers": [{"warm_start": True}], "student": {"distillation": {"folds": 5}}},
            "student.distillation.folds: not valid with teachers[0].warm_start (the pushed model has seen the examples",
        ),
        (
            {"student": {"mixup": 0.2, "distillation": {"folds": 5}}},
            "student.distillation.folds: not valid with student.augment, mixup, noise or swap (the fold belongs to the",
        ),
        (
            {"head": "multi_label", "evaluation": {}, "student": {"distillation": {"targets_top": 5}}},
            "student.distillation.targets_top: only valid with head: classification, found multi_label; remove it",
        ),
        (
            {"head": "regression", "evaluation": {}, "student": {"distillation": {"targets_dtype": "int8"}}},
            "student.distillation.targets_dtype: int8 is not valid for regression (each number would need its own",
        ),
        (
            {"student": {"distillation": {"head_per_teacher": True}}},
            "head_per_teacher: needs at least 2 teachers; found 1",
        ),
        (
            {"student": {"start": {"pretraining": "large"}}},
            "student.start.pretraining: found 'large'; expected an entry of pretraining: none",
        ),
        (
            {"pretraining": {"small": {"distillation": {"teacher": "large"}}, "large": {}}},
            "pretraining.small.distillation.teacher: found 'large'; expected an earlier entry: none",
        ),
        ({"pretraining": {"a-b": {}}}, "pretraining.a-b: found 'a-b'; expected letters, digits and underscores"),
        ({"pretraining": {"a": {"augment": True}}}, "pretraining.a.augment: not valid in a pre-training; remove it"),
        (
            {"pretraining": {"a": {}}, "student": {"start": {"pretraining": "a"}, "warm_start": True}},
            "student.start, warm_start: exclusive; remove one of them",
        ),
        (
            {"evaluation": {"metric": "PrecisionAtOne"}},
            "evaluation.metric: PrecisionAtOne needs a query; set query to its column",
        ),
        ({"name": "My Pipe"}, "name: found 'My Pipe'; expected a string that matches '^[a-z]("),
        ({"data": {"path": "d"}}, "data.label: missing (Name of the label column.)"),
        ({"data": {"path": "d", "label": "y", "format": "json"}}, "data.format: found 'json'; expected 'csv', 'tfrec"),
        (
            {"data": {"path": "d", "label": "y", "splits": {"train": 1}}},
            "data.splits: found {'train': 1}; expected the keys train and eval, and at most validation besides",
        ),
        (
            {"data": {"path": "v-{VERSION}", "label": "y"}},
            "data.path: found 'v-{VERSION}'; expected {SPAN} before {VERSION}",
        ),
        (
            {"student": {"memory": {"activation_budget_mb": 1.0}}},
            "student.memory.activation_budget_mb: only valid with rematerialise: auto; set that or remove it",
        ),
        (
            {"student": {"parallelism": {"stages": 2}, "strategy": {"name": "mirrored"}}},
            "student.parallelism.stages: not valid with strategy.name: mirrored; for replicas of the stages set par",
        ),
        (
            {"student": {"parallelism": {"stages": 2}, "memory": {"micro_batches": 2}}},
            "student.memory: not valid with parallelism.stages above 1; set parallelism.micro_batches and par",
        ),
        (
            {"student": {"memory": {"swap": "auto", "rematerialise": "auto"}}},
            "student.memory.rematerialise, swap: exclusive; set one of them to none",
        ),
        ({"student": {"memory": {"swap": []}}}, "student.memory.swap: found []; expected at least one layer, or none"),
        ({"student": {"precision": "half"}}, "student.precision: found 'half'; expected 'float32', 'mixed_bfloat16'"),
        (
            {"student": {"parallelism": {"schedule": "1f1b"}}},
            "student.parallelism: only valid with stages of at least 2; set stages or remove the rest",
        ),
        (
            {"student": {"parallelism": {"stages": 2, "schedule": "random"}}},
            "student.parallelism.schedule: found 'random'; expected 'gpipe' or '1f1b'",
        ),
        (
            {"data": {"path": "d", "label": "y", "spans": 2}},
            "data.spans: found 2; data.path has no {SPAN}; add it or set spans to 1",
        ),
        (
            {"data": {"path": "d", "label": "y", "drift": {"stop": True}}},
            "data.drift: data.path has no {SPAN}; add it or remove drift",
        ),
        (
            {"data": {"path": "d", "label": "y", "skew": {"thresholds": {"a": 0.1}}}},
            "data.skew: not valid without data.transfer; add it or remove skew",
        ),
        (
            {"teachers": [{"saved_model": "m", "warm_start": True}]},
            "teachers[0].warm_start: not valid with saved_model; remove warm_start",
        ),
        (
            {"student": {"strategy": {"name": "one_device", "devices": 2}}},
            "student.strategy.devices: found 2; expected 1 with one_device; for more set name: mirrored",
        ),
        (
            {"student": {"distillation": {"temperature": {"start": 4.0, "end": 0.0}}}},
            "student.distillation.temperature: found {'start': 4.0, 'end': 0.0}; expected a value greater than 0",
        ),
        (
            {"student": {"distillation": {"alpha": "high"}}},
            "student.distillation.alpha: found 'high'; expected a number, or {start, end, schedule}",
        ),
        (
            {"student": {"distillation": {"objective": "kl"}}},
            "student.distillation.objective: found 'kl'; expected for the head classification one of: kl_",
        ),
        (
            {"evaluation": {"metric": "MeanSquaredError"}},
            "evaluation.metric: found 'MeanSquaredError'; expected for the",
        ),
        (
            {"teachers": [{"saved_model": "m", "epochs": 3}]},
            "teachers[0].epochs: not valid with saved_model; remove epochs",
        ),
        ({"teachers": [{"outputs": "logits"}]}, "teachers[0].outputs: needs saved_model; set it or remove outputs"),
        (
            {"teachers": [{"shard_copies": True}]},
            "teachers[0].shard_copies: needs at least 2 copies; raise copies or remove shard_copies",
        ),
        (
            {"student": {"distillation": {"views": 8}}},
            "student.distillation.views: found 8, but nothing changes the inputs; set augment, noise, swap or mixup",
        ),
        (
            {"student": {"noise": 0.1, "distillation": {"views": 8, "targets": "online"}}},
            "student.distillation.views: found 8; expected 1 with targets: online, which makes a new view in every",
        ),
        (
            {
                "data": blobs.settings()["data"] | {"transfer": "more"},
                "student": {
                    "noise": 0.1,
                    "distillation": {"views": 2, "alpha": 1, "temperature": 1, "pseudo_labels": {}},
                },
            },
            "student.distillation.pseudo_labels: not valid with views; remove one of them",
        ),
        (
            {
                "data": blobs.settings()["data"] | {"transfer": "more"},
                "student": {"mixup": 1, "distillation": {"alpha": 1, "temperature": 1, "pseudo_labels": {}}},
            },
            "student.mixup: not valid with distillation.pseudo_labels, which belong to unmixed inputs",
        ),
        (
            {"student": {"mixup": 0.4, "omit_classes": [1]}},
            "student.mixup: not valid with omit_classes, which it would mix in; remove one of them",
        ),
        ({"student": {"swap": {"a": 1.5}}}, "student.swap.a: found 1.5; expected "),
        ({"baseline": {"swap": 1.5}}, "baseline.swap: found 1.5; expected "),
        ({"baseline": {"noise": {"a": 0}}}, "baseline.noise.a: found 0; expected "),
        (
            {"head": "regression", "baseline": {"label_smoothing": 0.1}},
            "baseline.label_smoothing: not valid for regression; remove it",
        ),
        (
            {"baseline": {"optimizer": {"average": 0.9}}, "student": {"strategy": {"name": "parameter_server"}}},
            "baseline.optimizer.average: not supported with student.strategy.name: parameter_server; remove it",
        ),
        ({"student": {"noise": -1}}, "student.noise: found -1; expected "),
        ({"pretraining": {"a": {"noise": 0.1}}}, "pretraining.a.noise: not valid in a pre-training; remove it"),
        (
            {"student": {"distillation": {"hints": [{"teacher": 2, "teacher_layer": "a", "student_layer": "b"}]}}},
            "student.distillation.hints: found teacher 2; expected at most 1",
        ),
        (
            {"head": "regression", "ensemble": {"combination": "geometric"}},
            "ensemble.combination: geometric is not valid for regression; set",
        ),
        (
            {"head": "multi_label", "student": {"omit_classes": [1]}},
            "student.omit_classes: only valid with head: classification, found multi_label",
        ),
        (
            {"student": {"strategy": {"name": "mirrored", "workers": 2}}},
            "student.strategy.workers: not valid with mirrored; remove it (valid with multi_worker_mirrored, par",
        ),
        ({"pretraining": {"a": {"epochs": "ten"}}}, "epochs: found 'ten'; expected a valid integer (Number of passes"),
        (
            {"student": {"strategy": {"name": "miror"}}},
            "student.strategy.name: found 'miror'; expected 'auto', 'one_device'",
        ),
    ],
)
def test_a_mistake_is_told_by_path_finding_and_remedy(changes, message):
    assert message in refuse(blobs.settings(**changes))


def test_a_mistake_between_keys_begins_with_their_path_and_quotes_no_section():
    mistake = refuse(blobs.settings(student={"strategy": {"name": "mirrored", "workers": 2}}))
    assert mistake.startswith("x.yaml: student.strategy.workers: not valid")
    assert "found {" not in mistake


def test_all_mistakes_are_told_at_once():
    assert len(refuse(blobs.settings(name="X", task="1")).splitlines()) == 2


def test_overrides_change_one_key(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(blobs.settings()))
    overrides = ["student.epochs=5", "teachers.0.copies=2", "teachers[0].hyperparameters={units: 8}", "beam.options=[]"]
    overrides.append("student.optimizer.learning_rate=1e-3")
    settings = load_settings(path, overrides)
    assert settings.student.epochs == 5
    assert settings.student.optimizer.learning_rate == 0.001
    assert settings.teachers[0].copies == 2
    assert settings.teachers[0].hyperparameters == {"units": 8}


@pytest.mark.parametrize("override", ["student.epochs", "=3", "teachers.7.epochs=1", "name.first=x", "name=[1"])
def test_an_override_that_fits_nowhere_is_named(tmp_path, override):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(blobs.settings()))
    with pytest.raises(UserError, match="--set"):
        load_settings(path, [override])


@pytest.mark.parametrize("text", ["", "- 1", "a: [1", "a: !!python/object/apply:os.system ['true']"])
def test_what_is_no_settings_file_is_a_sentence(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="s.yaml"):
        load_settings(path)


def test_copies_are_teachers_with_seeds_of_their_own():
    settings = parse_settings(blobs.settings(teachers=[{"copies": 2, "seed": 5}, {"seed": 9}]), "x")
    assert [teacher.seed for teacher in settings.all_teachers()] == [5, 6, 9]


def test_a_number_is_a_schedule_that_does_not_change():
    settings = parse_settings(blobs.settings(student={"distillation": {"alpha": 1, "temperature": 3.0}}), "x")
    assert settings.student.distillation.alpha.model_dump() == {"start": 1, "end": 1, "schedule": "linear"}
    assert settings.student.distillation.temperature.start == 3.0


def test_metric_and_objective_follow_the_head():
    settings = parse_settings(blobs.settings(head="regression", evaluation={}), "x")
    assert (settings.metric, settings.objective) == ("MeanAbsoluteError", "squared_error")


def test_sharded_copies_see_parts_of_the_data():
    settings = parse_settings(blobs.settings(teachers=[{}, {"copies": 2, "shard_copies": True}]), "x")
    assert settings.shards() == [None, Shard(index=0, of=2), Shard(index=1, of=2)]


def test_the_digits_file_has_a_variant_for_every_strategy():
    (path,) = (path for path in EXAMPLES if path.stem == "digits")
    variants = re.findall(r"#   --set (student\.strategy=)'(.*)'", path.read_text())
    names = [load_settings(path, [key + value]).student.strategy.name for key, value in variants]
    assert names == ["mirrored", "central_storage", "multi_worker_mirrored", "parameter_server", "tpu"]
    assert load_settings(path, ["student.loop=custom"]).student.loop == "custom"


def test_clusters_have_two_workers_and_one_parameter_server_unless_told_otherwise():
    strategy = {"name": "parameter_server", "parameter_servers": 3}
    found = parse_settings(blobs.settings(student={"strategy": strategy}), "x").student.strategy
    assert (found.workers, found.parameter_servers) == (2, 3)


def test_settings_and_what_a_training_is_told_need_no_tensorflow():
    modules = "stillhouse.modules.settings, stillhouse.modules.training.config"
    code = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_table_of_settings_is_current():
    """After a change of the models: python -m stillhouse.modules.settings.table > docs/settings.md"""
    assert (REPOSITORY / "docs" / "settings.md").read_text() == settings_tables()


def test_every_section_and_key_stands_in_the_table():
    tables = settings_tables()
    for name, section in Settings.model_json_schema()["$defs"].items():
        assert f"\n## {name}\n" in tables
        assert all(f"| `{key}` |" in tables for key in section["properties"])
    assert "| `alpha` | [Schedule](#schedule) |" in tables
    assert "| `micro_batches` | integer, at least 1, or null | `null` |" in tables


def baseline_of(student, **baseline):
    return parse_settings(blobs.settings(student=student, baseline=baseline), "x").baseline_training()


def test_a_baseline_is_treated_as_the_student_unless_its_settings_say_otherwise():
    student = {"epochs": 7, "noise": 0.3, "mixup": 0.2, "optimizer": {"learning_rate": 0.5}}
    same = baseline_of(student)
    assert (same.epochs, same.noise, same.mixup, same.optimizer.learning_rate) == (7, 0.3, 0.2, 0.5)
    other = baseline_of(student, epochs=3, noise=0, mixup=0.4, optimizer={"learning_rate": 0.1})
    assert (other.epochs, other.noise, other.mixup, other.optimizer.learning_rate) == (3, None, 0.4, 0.1)
