"""The comparison in the terminal."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stillhouse.modules.distillation.summary import learnt, summary, treatment


def print_comparison(comparison: dict[str, Any], console: Console) -> None:
    """Prints every model (role, metrics, size, latency), every gate with its reason, and the push."""
    models = comparison["models"]
    metrics = list(dict.fromkeys(name for model in models for name in model["metrics"]))
    table = Table(title=f"{comparison['pipeline']}: {comparison['eval_examples']} eval examples", title_justify="left")
    table.add_column("model")
    table.add_column("role")
    for name in [*metrics, "parameters", "bytes", "latency ms"]:
        table.add_column(name, justify="right")
    for model in models:
        figures = [f"{model['metrics'][name]:.4f}" if name in model["metrics"] else "" for name in metrics]
        sizes = [f"{model['parameters']:,}", f"{model['bytes']:,}", f"{model['latency_ms']:.2f}"]
        style = "bold" if model["role"] == "student" else None
        table.add_row(escape(model["name"]), model["role"], *figures, *sizes, style=style)
    console.print(table)
    for gate in comparison["gates"]:
        verdict = "[green]passed[/green] " if gate["passed"] else "[red]failed[/red] "
        console.print(f"  {gate['name']:<9} {verdict}  {escape(gate['reason'])}", highlight=False, soft_wrap=True)
    for line in [*paired_lines(comparison), *distillation_lines(comparison)]:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    for warning in comparison.get("warnings", []):
        console.print(f"  [yellow]warning[/yellow]   {escape(warning)}", highlight=False, soft_wrap=True)
    pushed, served = comparison["pushed"], comparison.get("served")
    if pushed:
        console.print(f"pushed to {escape(pushed)}", highlight=False, soft_wrap=True)
        if served and served != pushed:
            text = f"[yellow]not served:[/yellow] {escape(served)} is a newer version; `stillhouse pushed` lists all"
            console.print(text, highlight=False, soft_wrap=True)
    else:
        console.print("not pushed: a gate failed; the served version is unchanged")


def distillation_lines(comparison: dict[str, Any]) -> list[str]:
    """Returns in words what distillation gained and why, and how the baseline was trained; [] of an older run."""
    lines = []
    if distillation := comparison.get("distillation"):
        lines.append(f"distillation: {summary(distillation)}")
        lines += filter(None, [learnt(distillation)])
        lines += [f"diagnosis: {sentence}" for sentence in distillation["diagnosis"]]
    if baseline := comparison.get("baseline"):
        lines.append(f"Baseline: {treatment(baseline)}")
    return lines


def paired_lines(comparison: dict[str, Any]) -> list[str]:
    """Returns in words how sure the student's differences from the other models are, and its fidelity.

    The difference from the baseline is among the `distillation_lines`, if there are such.
    """
    names = {model["role"]: model["name"] for model in comparison["models"]}
    if (comparison.get("distillation") or {}).get("gain"):
        names.pop("baseline", None)
    others = filter(None, [names.get("baseline"), names.get("ensemble") or names.get("teacher"), names.get("pushed")])
    lines = []
    for other in others:
        pair = next(
            (p for p in comparison.get("pairs", []) if (p["model"], p["other"]) == (names["student"], other)), None
        )
        if pair:
            words = {
                "better": f"Student is better than {other}",
                "worse": f"Student is worse than {other}",
                "undecided": f"no difference between Student and {other} is shown",
            }
            lines.append(
                f"{words[pair['verdict']]}: {pair['metric']} {pair['change']:+.4f}, {pair['confidence']:.0%} interval "
                f"{pair['low']:+.4f} to {pair['high']:+.4f}, p = {pair['p']:.2g} ({pair['test']})"
            )
    if fidelity := comparison.get("fidelity"):
        lines.append(
            f"fidelity: the student predicts as {fidelity['reference']} does on {fidelity['agreement']:.1%} of the "
            f"eval examples, KL divergence {fidelity['kl']:.4f} nats"
        )
    return lines
