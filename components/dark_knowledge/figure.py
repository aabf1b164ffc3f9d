"""Draws the class-similarity matrix."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

MAX_ANNOTATED = 12  # maximum number of classes with legible numbers
INCHES_PER_CLASS = 0.5


def similarity_figure(classes: list[str], entry: dict[str, Any]) -> str:
    """Returns the SVG of the mean soft target per true class, for one entry of `temperatures`.

    The colours exclude the diagonal, which would hide everything else.
    """
    matrix = np.array(entry["mean_soft_targets"], float)
    off_diagonal = np.where(np.eye(len(classes), dtype=bool), np.nan, matrix)
    size = min(12.0, 2.5 + INCHES_PER_CLASS * len(classes))
    # Text stays text and ids do not depend on the time: the same input gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "stillhouse"}):
        figure = Figure(figsize=(size + 0.8, size), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(off_diagonal, cmap="viridis", vmin=0)
        axes.set_xlabel("class in the soft target")
        axes.set_ylabel("true class")
        axes.set_title(f"mean soft target at T = {entry['temperature']:g}, entropy {entry['entropy']['mean']:.3f} nats")
        if len(classes) <= 50:
            axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 2 else 0)
            axes.set_yticks(range(len(classes)), classes)
        if len(classes) <= MAX_ANNOTATED:
            brightest = np.nanmax(off_diagonal) if np.isfinite(off_diagonal).any() else 1.0
            for (row, column), value in np.ndenumerate(matrix):
                bright = row != column and value > 0.6 * brightest
                colour = "black" if row == column or bright else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
        figure.colorbar(image, label="mean probability (without the true class)")
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()
