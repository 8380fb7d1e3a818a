"""What ReLU leaves of a curve (MobileNetV2, 1801.04381, Figure 1, section 3.2 and appendix A).

A spiral is embedded into n dimensions by a random matrix T, goes through ReLU, and is projected back by the
pseudo-inverse of T: in few dimensions parts of it fall together, in many it comes back, if bent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.bench.study.study import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS, TURNS = 800, 2.25
SPIRALS = 6  # in a row of the picture
EMBEDDINGS = 200  # random matrices over which a dimension's numbers are averaged
THEOREM_CASES = (
    *((2, m) for m in (2, 3, 5, 15, 30)),
    *((8, m) for m in (8, 12, 16, 24, 48)),
    *((16, m) for m in (16, 24, 32, 48, 96)),
)
"""(n, m): channels of a bottleneck, and of the tensor behind ReLU."""
CHUNK = 1 << 20  # random numbers drawn at once


def spiral(points: int = POINTS) -> np.ndarray:
    """Return a spiral, (2, points)."""
    radius = np.linspace(0.05, 1, points)
    angle = 2 * np.pi * TURNS * radius
    return radius * np.stack([np.cos(angle), np.sin(angle)])


def embed(x: np.ndarray, dimension: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return ``pinv(T) ReLU(T x)`` for a random T, and at how many dimensions each point is positive."""
    matrix = random.standard_normal((dimension, len(x)))
    embedded = matrix @ x
    return np.linalg.pinv(matrix) @ np.maximum(embedded, 0), (embedded > 0).sum(axis=0)


def kept_part(n: int, m: int) -> float:
    """Return the part of the n-dimensional volume that ReLU(Bx) keeps in m dimensions, on average (Theorem 1).

    ``N / 2^m`` with ``N = sum(C(m, k) for k = 0 ... m - n)``: the sign patterns of m random values of which at
    least n are positive, so that the rest of B can still be inverted (Lemma 2).
    """
    return sum(comb(m, k) for k in range(m - n + 1)) / 2**m


def simulate_kept_part(n: int, m: int, samples: int, random: np.random.Generator) -> float:
    """Return the part of random points x in n dimensions at which ReLU(Bx) of a random B (m, n) is invertible."""
    kept, left = 0, samples
    while left:
        count = min(left, max(1, CHUNK // (m * n)))
        matrices, points = random.standard_normal((count, m, n)), random.standard_normal((count, n, 1))
        positive = ((matrices @ points)[..., 0] > 0).sum(axis=1)
        kept += int((positive >= n).sum())
        left -= count
    return kept / samples


@dataclass(frozen=True)
class Embedding:
    """What the spiral suffers in one dimension, on average over random matrices.

    Attributes
    ----------
    error : float
        Distance of what comes back from the spiral, after the best scaling, relative to the spiral's size.
    collapsed : float
        Part of its points at which fewer than two dimensions are positive: there it cannot be inverted.
    expected : float
        The same by Theorem 1.
    """

    dimension: int
    error: float
    collapsed: float
    expected: float


@dataclass(frozen=True)
class Kept:
    """Theorem 1 beside its simulation."""

    n: int
    m: int
    formula: float
    simulated: float
    samples: int

    @property
    def standard_error(self) -> float:
        """Of the simulation, if the formula holds."""
        return sqrt(self.formula * (1 - self.formula) / self.samples)


@dataclass(frozen=True)
class Manifold:
    """All of it."""

    embeddings: list[Embedding]
    theorem: list[Kept]
    pictures: list[np.ndarray]
    seed: int

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        theorem = [{**asdict(row), "standard_error": row.standard_error} for row in self.theorem]
        return {"seed": self.seed, "embeddings": [asdict(row) for row in self.embeddings], "theorem_1": theorem}

    def tables(self) -> list[Table]:
        """Return the spiral's losses, and the theorem's numbers."""
        spirals = Table(
            "A spiral through random dimensions, ReLU, and back (Figure 1)",
            ("dimensions", "error of what comes back", "points collapsed", "Theorem 1"),
            [
                (str(row.dimension), f"{row.error:.1%}", f"{row.collapsed:.2%}", f"{row.expected:.2%}")
                for row in self.embeddings
            ],
            texts=0,
            notes=(
                f"means over {EMBEDDINGS} random matrices; error after the best scaling, as part of the spiral's size",
                "collapsed: fewer than two positive dimensions, so that no inverse exists (Lemma 2)",
            ),
        )
        rows = []
        for row in self.theorem:
            deviations = (row.simulated - row.formula) / row.standard_error if row.standard_error else 0.0
            rows.append(
                (
                    *(str(row.n), str(row.m), f"{row.m / row.n:.3g}"),
                    *(f"{row.formula:.4%}", f"{row.simulated:.4%}", f"{deviations:+.1f}"),
                )
            )
        theorem = Table(
            "Part of the volume that ReLU keeps: n dimensions seen through m (Theorem 1: N(m, n) / 2^m)",
            ("n", "m", "m/n", "formula", "simulated", "standard errors apart"),
            rows,
            texts=0,
            notes=(f"{self.theorem[0].samples} random matrices and points each; MobileNetV2 expands by m/n = 6",),
        )
        return [spirals, theorem]

    def draw(self, figure: Figure) -> None:
        """The paper's row of spirals; below it the theorem."""
        from npmobilenet.bench.study.pictures import BLACK, GREY, SEQUENTIAL, SERIES, as_photograph

        columns = min(len(self.pictures), SPIRALS)
        lines = -(-len(self.pictures) // columns)
        above = 1.95 * lines + 0.3
        figure.set_size_inches(figure.get_size_inches()[0], above + 3.6)
        rows = figure.subfigures(2, 1, height_ratios=(above, 3.6))
        titles = ["the spiral", *(f"{row.dimension} dimensions" for row in self.embeddings)]
        losses = ["", *(f"{row.collapsed:.0%} collapsed" for row in self.embeddings)]
        grid = rows[0].subplots(lines, columns, squeeze=False)
        for axes in grid.flat:
            as_photograph(axes)
        for axes, title, loss, points in zip(grid.flat, titles, losses, self.pictures, strict=False):
            axes.scatter(*points, c=np.arange(points.shape[1]), s=5, cmap=SEQUENTIAL, linewidths=0)
            axes.set_title(title, fontsize=10)
            axes.set_aspect("equal", adjustable="datalim")
            axes.text(0.5, -0.08, loss, transform=axes.transAxes, ha="center", va="top", fontsize=9, color=GREY)
        rows[0].suptitle("A spiral through random dimensions, ReLU, and back (Figure 1)", fontsize=11)
        axes = rows[1].subplots()
        for colour, n in zip(SERIES, dict.fromkeys(row.n for row in self.theorem), strict=False):
            sizes = range(n, 6 * n + 1)
            axes.plot([m / n for m in sizes], [kept_part(n, m) for m in sizes], color=colour, label=f"n = {n}, formula")
            cases = [row for row in self.theorem if row.n == n and row.m <= 6 * n]
            axes.errorbar(
                [row.m / n for row in cases],
                [row.simulated for row in cases],
                [2 * row.standard_error for row in cases],
                fmt="o",
                markersize=5,
                capsize=3,
                color=colour,
                label="simulated, two standard errors" if n == 2 else None,
            )
        axes.axvline(6, color=BLACK, linestyle=":", linewidth=1)
        axes.annotate("MobileNetV2", (6, 0.06), xytext=(-4, 0), textcoords="offset points", ha="right")
        axes.set_xlabel("expansion m / n")
        axes.set_ylabel("part of the volume kept")
        axes.set_title("How much of a volume in n dimensions survives ReLU in m (Theorem 1)")
        axes.set_ylim(0, 1.05)
        axes.legend(loc="lower right", bbox_to_anchor=(0.93, 0.12))


def study(dimensions: Sequence[int], samples: int, seed: int) -> Manifold:
    """Send a spiral through random embeddings, and simulate Theorem 1.

    Parameters
    ----------
    dimensions : sequence of int
        Of the embeddings, at least 2.
    samples : int
        Random matrices and points for each case of the theorem.
    seed : int

    Raises
    ------
    ValueError
        If a dimension is too small to hold the spiral.
    """
    if min(dimensions) < 2:
        raise ValueError(f"a spiral needs 2 dimensions or more, got {min(dimensions)}")
    random = np.random.default_rng(seed)
    x = spiral()
    embeddings, pictures = [], [x]
    for dimension in dimensions:
        results = [embed(x, dimension, random) for _ in range(EMBEDDINGS)]
        pictures.append(results[0][0])
        collapsed = np.mean([(positive < 2).mean() for _, positive in results])
        error = np.mean([_error(x, y) for y, _ in results])
        embeddings.append(Embedding(dimension, float(error), float(collapsed), 1 - kept_part(2, dimension)))
    theorem = [
        Kept(n, m, kept_part(n, m), simulate_kept_part(n, m, samples, random), samples) for n, m in THEOREM_CASES
    ]
    return Manifold(embeddings, theorem, pictures, seed)


def _error(x: np.ndarray, y: np.ndarray) -> float:
    """Distance of y from x after the best scaling."""
    square = float((y * y).sum())
    scale = float((x * y).sum()) / square if square else 0.0
    return float(np.linalg.norm(x - scale * y) / np.linalg.norm(x))
