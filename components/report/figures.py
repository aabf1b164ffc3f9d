"""Draws the report's figures as SVG, for the page's own colours."""

import io
from collections.abc import Sequence
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

TEXT = "#010203"  # stands for the colour of the page's text
COLOURS = {
    "teacher": "#4c78a8",
    "ensemble": "#54a24b",
    "baseline": "#b279a2",
    "round": "#e7ba52",
    "student": "#f58518",
    "pushed": "#72b7b2",
}
MAX_CURVES = 12
VALIDATION = "validation_"  # before the names of figures in a training job's history
LOGARITHMIC_FROM = 5  # ratio of the largest to the smallest value from which an axis is logarithmic
# Grey squares need no plotting library's frame of several kilobytes each.
IMAGE = jinja2.Template(
    '<svg viewBox="0 0 {{ pixels|length }} {{ pixels|length }}" width="64" height="64" role="img" '
    'shape-rendering="crispEdges" aria-label="{{ describes }}">{% for row in pixels %}{% set y = loop.index0 %}'
    '{% for value in row %}<rect x="{{ loop.index0 }}" y="{{ y }}" width="1" height="1" '
    'fill="rgb({{ shade(value) }},{{ shade(value) }},{{ shade(value) }})"/>{% endfor %}{% endfor %}</svg>',
    autoescape=True,
)
STYLE: dict[Any, Any] = {  # of matplotlib's rcParams
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.titlecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.transparent": True,
    "legend.frameon": False,
    "legend.labelcolor": TEXT,
    "grid.color": TEXT,
    "grid.alpha": 0.15,
}


def _svg(name: str, draw, width: float, height: float, columns: int = 1) -> str:
    """Returns the SVG of what `draw` puts on the axes; `name` makes its ids unique in the page."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots(1, columns, squeeze=False)[0])
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Title": name})
    text = svg.getvalue()
    return text[text.index("<svg") :].replace(TEXT, "currentColor")


def trade_off(models: Sequence[dict[str, Any]], metric: str) -> str:
    """Returns a scatter plot of the metric over size and latency of each model."""

    def draw(axes):
        for axis, (key, label) in zip(
            axes, (("bytes", "size, bytes"), ("latency_ms", "latency per example, ms")), strict=True
        ):
            for role, colour in COLOURS.items():
                own = [model for model in models if model["role"] == role and metric in model["metrics"]]
                if own:
                    axis.scatter([m[key] for m in own], [m["metrics"][metric] for m in own], color=colour, label=role)
            values = [model[key] for model in models]
            if max(values) > LOGARITHMIC_FROM * min(values):
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.xaxis.set_minor_formatter(NullFormatter())
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
            axis.set_xlabel(label)
            axis.set_ylabel(metric)
            axis.grid(visible=True)
        axes[0].legend()

    return _svg("trade_off", draw, 9, 3.4, columns=2)


def reliability(calibrations: dict[str, tuple[str, dict[str, Any]]]) -> str:
    """Returns the reliability diagram of {model name: (role, result of `predictions.calibration`)}."""

    def draw(axes):
        axes[0].plot([0, 1], [0, 1], color=TEXT, linewidth=0.8, linestyle=":")
        for name, (role, calibration) in calibrations.items():
            bins = calibration["bins"]
            axes[0].plot(
                [part["confidence"] for part in bins],
                [part["accuracy"] for part in bins],
                marker="o",
                color=COLOURS[role],
                label=f"{name}: error {calibration['error']:.3f}",
            )
        axes[0].set_xlabel("confidence (largest probability)")
        axes[0].set_ylabel("accuracy")
        axes[0].grid(visible=True)
        axes[0].legend()

    return _svg("reliability", draw, 5, 4)


def curves(histories: dict[str, tuple[str, dict[str, list[float]]]]) -> str:
    """Returns the training curves of {name: (role, {metric: [value of each epoch]})}.

    Three plots: the losses, the terms of the distillation loss, and α and T; with a validation split a fourth, the
    quality on it.
    """
    qualities = {
        name
        for _, history in histories.values()
        for name in history
        if name.startswith(VALIDATION) and "loss" not in name
    }
    quality = min(qualities, default=None)

    def draw(axes):
        for name, (role, history) in list(histories.items())[:MAX_CURVES]:
            epochs = range(1, len(history["loss"]) + 1)
            axes[0].plot(
                epochs, history["loss"], color=COLOURS[role], label=name, marker="." if len(epochs) < 3 else ""
            )
            if quality in history:
                axes[3].plot(epochs, history[quality], color=COLOURS[role], label=name)
            for term, line in (("hard_loss", "--"), ("soft_loss", ":")):
                if term in history:
                    axes[1].plot(epochs, history[term], line, color=COLOURS[role], label=f"{name}, {term}")
            if "soft_loss" in history:
                axes[1].plot(epochs, history["loss"], color=COLOURS[role], label=f"{name}, loss")
            for key, line, label in (("alpha", "-", "α"), ("temperature", "--", "T")):
                if key in history:
                    axes[2].plot(epochs, history[key], line, color=COLOURS[role], label=f"{name}, {label}")
        labels = {
            "loss of each model": "loss, nats",
            "terms of the distillation loss": "loss, nats",
            "α and temperature T": "value",
        }
        if quality:
            labels["validation split"] = quality.removeprefix(VALIDATION).replace("_", " ")
        for axis, (title, unit) in zip(axes, labels.items(), strict=True):
            axis.set_title(title)
            axis.set_xlabel("epoch")
            axis.set_ylabel(unit)
            axis.grid(visible=True)
            if axis.lines:
                axis.legend(fontsize=8)

    columns = 4 if quality else 3
    return _svg("curves", draw, 4 * columns, 3.6, columns)


def small_image(pixels: list[list[float]], describes: str) -> str:
    """Returns a grey image, rows of numbers from 0 to 1, as SVG with the alternative text `describes`."""
    return IMAGE.render(pixels=pixels, describes=describes, shade=lambda value: round(255 * value))
