import json
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
        ({"teachers": [{"epochs": "ten"}]}, "teachers[0].epochs: found 'ten'; allowed: a valid integer"),
        (
            {"student": {"distillation": {"alpha": 1.5}}},
            "student.distillation.alpha: found 1.5; allowed: between 0 and 1",
        ),
        (
            {"student": {"distillation": {"temperature": 0}}},
            "student.distillation.temperature: found 0; allowed: greater than 0",
        ),
        ({"teachers": []}, "teachers: found []; allowed: List should have at least 1 item"),
        (
            {"ingestion": {"cache": "tape"}},
            "ingestion.cache: found 'tape'; allowed: 'auto', 'memory', 'disk' or 'none'",
        ),
        ({"ingestion": {"memory_share": 0}}, "ingestion.memory_share: found 0; allowed: greater than 0"),
        ({"ingestion": {"service_workers": 2}}, "service_workers: their batches come as they are ready"),
        (
            {"ingestion": {"service_workers": 2, "deterministic": False, "cache": "memory"}},
            "service_workers: they read files; set cache: disk, or none",
        ),
        (
            {
                "ingestion": {"service_workers": 2, "deterministic": False},
                "student": {"strategy": {"name": "parameter_server"}},
            },
            "ingestion.service_workers: the workers of parameter_server read for themselves",
        ),
        (
            {"student": {"strategy": {"name": "parameter_server"}, "distillation": {"targets": "online"}}},
            "student.distillation.targets: TensorFlow does not load teachers onto parameter servers; set cached",
        ),
        (
            {"student": {"distillation": {"pseudo_labels": {}}}},
            "pseudo_labels: they hold the labels too; set alpha: 1 and temperature: 1",
        ),
        (
            {
                "student": {
                    "distillation": {"pseudo_labels": {}, "alpha": 1, "temperature": 1, "head_per_teacher": True}
                }
            },
            "pseudo_labels: head_per_teacher cannot be set beside them",
        ),
        (
            {"student": {"distillation": {"pseudo_labels": {}, "alpha": 1, "temperature": 1}}},
            "student.distillation.pseudo_labels: set data.transfer, the examples without labels",
        ),
        (
            {"student": {"distillation": {"pretraining": {}}}},
            "student.distillation.pretraining: set data.transfer, the examples without labels",
        ),
        ({"student": {"distillation": {"head_per_teacher": True}}}, "head_per_teacher: there is one teacher only"),
        (
            {"student": {"start": {"pretraining": "large"}}},
            "student.start.pretraining: there is no 'large' in pretraining; there is: none",
        ),
        (
            {"pretraining": {"small": {"distillation": {"teacher": "large"}}, "large": {}}},
            "pretraining.small.distillation.teacher: there is no 'large' above it; there is: none",
        ),
        ({"pretraining": {"a-b": {}}}, "pretraining.a-b: a name has letters, digits and underscores"),
        ({"pretraining": {"a": {"augment": True}}}, "augment is of no use in a pre-training"),
        (
            {"pretraining": {"a": {}}, "student": {"start": {"pretraining": "a"}, "warm_start": True}},
            "start and warm_start: a training starts from one of them",
        ),
        (
            {"evaluation": {"metric": "PrecisionAtOne"}},
            "metric: PrecisionAtOne ranks the candidates of each query; set query to their column",
        ),
        ({"name": "My Pipe"}, "name: found 'My Pipe'; allowed: String should match pattern"),
        ({"data": {"path": "d"}}, "data.label: missing (The label column.)"),
        ({"data": {"path": "d", "label": "y", "format": "json"}}, "data.format: found 'json'; allowed: 'csv', 'tfrec"),
        ({"data": {"path": "d", "label": "y", "splits": {"train": 1}}}, "exactly train and eval are allowed"),
        ({"data": {"path": "v-{VERSION}", "label": "y"}}, "{VERSION} needs {SPAN} before it"),
        (
            {"student": {"memory": {"activation_budget_mb": 1.0}}},
            "memory.activation_budget_mb is of use with memory.rematerialise: auto only",
        ),
        (
            {"student": {"parallelism": {"stages": 2}, "strategy": {"name": "mirrored"}}},
            "stages do not go together with strategy.name: mirrored; for replicas of them set parallelism.replicas",
        ),
        (
            {"student": {"parallelism": {"stages": 2}, "memory": {"micro_batches": 2}}},
            "memory is for a network in one piece; parallelism has micro_batches and rematerialise of its own",
        ),
        (
            {"student": {"memory": {"swap": "auto", "rematerialise": "auto"}}},
            "memory: activations are computed again (rematerialise) or swapped (swap), not both",
        ),
        ({"student": {"memory": {"swap": []}}}, "memory.swap: name at least one layer, or none"),
        ({"student": {"precision": "half"}}, "student.precision: found 'half'; allowed: 'float32', 'mixed_bfloat16'"),
        (
            {"student": {"parallelism": {"schedule": "1f1b"}}},
            "parallelism: its settings are of use with at least 2 stages",
        ),
        (
            {"student": {"parallelism": {"stages": 2, "schedule": "random"}}},
            "student.parallelism.schedule: found 'random'; allowed: 'gpipe' or '1f1b'",
        ),
        ({"data": {"path": "d", "label": "y", "spans": 2}}, "data.spans is 2, but data.path has no {SPAN}"),
        ({"teachers": [{"saved_model": "m", "warm_start": True}]}, "warm_start is of no use with saved_model"),
        (
            {"student": {"strategy": {"name": "one_device", "devices": 2}}},
            "devices is 2, but one_device has one; for more, name mirrored",
        ),
        (
            {"student": {"distillation": {"temperature": {"start": 4.0, "end": 0.0}}}},
            "student.distillation.temperature: found {'start': 4.0, 'end': 0.0}; allowed: greater than 0",
        ),
        (
            {"student": {"distillation": {"alpha": "high"}}},
            "student.distillation.alpha: found 'high'; allowed: a number, or {start, end, schedule}",
        ),
        (
            {"student": {"distillation": {"objective": "kl"}}},
            "student.distillation.objective: found 'kl'; allowed for the head classification: kl_divergence, soft_",
        ),
        (
            {"evaluation": {"metric": "MeanSquaredError"}},
            "evaluation.metric: found 'MeanSquaredError'; allowed for the",
        ),
        ({"teachers": [{"saved_model": "m", "epochs": 3}]}, "epochs is of no use with saved_model"),
        ({"teachers": [{"outputs": "logits"}]}, "outputs needs saved_model"),
        ({"teachers": [{"shard_copies": True}]}, "shard_copies needs at least 2 copies"),
        ({"student": {"augment": True}}, "student.augment: cached targets are those of the unchanged inputs"),
        (
            {"student": {"distillation": {"hints": [{"teacher": 2, "teacher_layer": "a", "student_layer": "b"}]}}},
            "student.distillation.hints: there is no teacher 2, only 1",
        ),
        (
            {"head": "regression", "ensemble": {"combination": "geometric"}},
            "ensemble.combination: geometric is for",
        ),
        (
            {"head": "multi_label", "student": {"omit_classes": [1]}},
            "student.omit_classes: the head multi_label has",
        ),
        (
            {"student": {"strategy": {"name": "miror"}}},
            "student.strategy.name: found 'miror'; allowed: 'auto', 'one_device'",
        ),
    ],
)
def test_a_mistake_is_told_by_path_finding_and_remedy(changes, message):
    assert message in refuse(blobs.settings(**changes))


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
    settings = parse_settings(blobs.settings(head="regression"), "x")
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
    found = settings_tables()
    for name, section in Settings.model_json_schema()["$defs"].items():
        assert f"\n## {name}\n" in found
        assert all(f"| `{key}` |" in found for key in section["properties"])
    assert "| `alpha` | [Schedule](#schedule) |" in found
    assert "| `micro_batches` | whole number, at least 1, or null | `null` |" in found
