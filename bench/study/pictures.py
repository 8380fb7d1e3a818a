"""Pictures of studies: matplotlib, if it is installed, with one style for all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npmobilenet.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from npmobilenet.bench.study.study import Study

SUFFIXES = (".png", ".svg", ".pdf")
DOTS_PER_INCH = 120
WIDTH = 9.0  # inches of every picture: its letters are as large as a page's where a README shows it
FOOT = 0.3  # inches below it, where its source is named

# Okabe and Ito's colours, which can be told apart with any colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    "#222222",
)
GREY = "#777777"
SERIES = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
SEQUENTIAL, DIVERGING = "viridis", "PuOr_r"

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "svg.hashsalt": "npmobilenet",  # the same picture gives the same file
}


def checked_path(path: Path) -> Path:
    """Return a path that a picture can be written to.

    Raises
    ------
    ValueError
        If its suffix is of no kind of picture, or its folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a picture's name must end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    return path


def save(study: Study, path: Path, source: str) -> None:
    """Draw a study's picture into a file.

    Parameters
    ----------
    study : Study
    path : Path
    source : str
        Written below it: the command that makes it, and the paper.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            'the picture needs matplotlib, which is not installed: pip install "npmobilenet[study]"'
        ) from None
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
        study.draw(figure)
        _foot(figure, source, getattr(study, "warning", None))
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written: {error}") from None


def _foot(figure: Figure, source: str, warning: str | None) -> None:
    """Write below a picture where it comes from, and what makes it doubtful."""
    width, height = figure.get_size_inches()
    lines = [(source, GREY), *([(f"noisy: {warning}", RED)] if warning else [])]
    foot = FOOT + 0.17 * (len(lines) - 1)
    figure.set_size_inches(width, height + foot)
    part, margin = foot / (height + foot), 0.06 / width
    figure.get_layout_engine().set(rect=(margin, part, 1 - 2 * margin, 1 - part - 0.06 / height))
    for number, (text, colour) in enumerate(lines):
        y = (foot - 0.2 - 0.17 * number) / (height + foot)
        figure.text(2 * margin, y, text, fontsize=8, color=colour, va="baseline")


def grouped_bars(axes: Axes, labels: list[str], groups: dict[str, list[float]]) -> None:
    """Draw for each label a bar of each group side by side."""
    width = 0.8 / len(groups)
    for number, ((name, values), colour) in enumerate(zip(groups.items(), SERIES, strict=False)):
        at = np.arange(len(labels)) + (number - (len(groups) - 1) / 2) * width
        axes.bar(at, values, width, label=name, color=colour)
    axes.set_xticks(range(len(labels)), labels)
    axes.grid(axis="x", visible=False)


def as_photograph(axes: Axes) -> None:
    """Take everything away that belongs to a plot, not to a picture."""
    axes.set_axis_off()
    axes.grid(visible=False)
