"""The comparison in the terminal: what distillation gained, and runs of before."""

import io

from rich.console import Console

from stillhouse.pipelines.cli.comparison_table import print_comparison


def printed(**more):
    models = [("Teacher-1", "teacher"), ("Baseline", "baseline"), ("Student", "student")]
    sizes = {"metrics": {"accuracy": 0.9}, "parameters": 10, "bytes": 10, "latency_ms": 1.0}
    gain = {"metric": "accuracy", "change": 0.1, "low": 0.08, "high": 0.12, "p": 0.001, "test": "McNemar"}
    verdict = {"confidence": 0.95, "verdict": "better"}
    comparison = {
        "pipeline": "p",
        "eval_examples": 500,
        "models": [{"name": name, "role": role, **sizes} for name, role in models],
        "gates": [],
        "pairs": [{"model": "Student", "other": "Baseline", **gain, **verdict}],
        "pushed": None,
    }
    distillation = {
        "reference": "Teacher-1",
        "baseline": "Baseline",
        "gain": gain | verdict,
        "recovered": None,
        "fidelity": {"train": 0.99, "eval": 0.9},
        "entropy": 0.05,
        "entropy_transfer": None,
        "max_entropy": 2.3,
        "soft_gradient_share": None,
        "diagnosis": ["The teachers repeat the labels.", "The student [is] small."],
    }
    treated = {"updates": 20, "student_updates": 20, "validation": None, "views": {}, "student_views": {}}
    console = Console(file=io.StringIO(), width=200)
    print_comparison(comparison | ({"distillation": distillation, "baseline": treated} | more if more else {}), console)
    return console.file.getvalue()


def test_the_gain_its_reasons_and_the_baselines_treatment_are_printed_once():
    lines = [line.strip() for line in printed(warnings=[]).splitlines()]
    assert (
        "distillation: gain +0.1000 accuracy over Baseline (95% interval +0.0800 to +0.1200, p = 0.001, McNemar); soft "
        "targets hold 0.05 of 2.30 nats" in lines
    )
    assert "the student agrees with its teachers on 99.0% of its training inputs and 90.0% of eval" in lines
    assert "diagnosis: The teachers repeat the labels." in lines
    assert "diagnosis: The student [is] small." in lines
    assert "Baseline: 20 updates (the student's number), last epoch, no views, as the student" in lines
    assert not any(line.startswith("Student is better than Baseline") for line in lines)


def test_a_run_before_there_was_a_diagnosis_is_printed_as_it_was():
    text = printed()
    assert "Student is better than Baseline: accuracy +0.1000, 95% interval +0.0800 to +0.1200, p = 0.001" in text
    assert "diagnosis" not in text
