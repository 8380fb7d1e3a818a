"""Pictures of what was measured, as SVG that stands in a page: text follows the page's colour and scales with it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np

from npmobilenet.bench.peers.report import fastest_variants
from npmobilenet.bench.roofline import UNITS, Roofline
from npmobilenet.errors import MissingDependencyError
from npmobilenet.text import binary_size, plural

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
except ImportError:
    raise MissingDependencyError('pictures need matplotlib: pip install "npmobilenet[report]"') from None

INK = "#010203"  # what is printed in the page's own colour
FAINT = "#888888"
WIDTH = 4.6  # inches: text is still legible when a phone shows it narrower
KINDS = {
    "fused block": "#7a5cc4",
    "pointwise": "#2f7fd1",
    "depthwise": "#e07b2a",
    "dense": "#2e9e6b",
    "other": "#9a9a9a",
}
STYLE = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def kind(operations: Sequence[str]) -> str:
    """What a call computes, one of `KINDS`."""
    if len(operations) > 1:
        return "fused block"
    for name, part in (("pointwise", "pointwise"), ("depthwise", "depthwise"), ("dense", "conv2d")):
        if part in operations[0]:
            return name
    return "other"


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure, title: str) -> str:
    """The drawing alone, without what only a file of its own needs."""
    stream = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure.savefig(stream, format="svg", transparent=True)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| (?:width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg).replace(INK, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], colors: Sequence[str], words: Sequence[str]
) -> None:
    """Bars from the top down, each with a word behind it."""
    places = np.arange(len(names))[::-1]
    axes.barh(places, values, color=colors, height=0.72)
    axes.set_yticks(places, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0)
    for place, value, word in zip(places, values, words, strict=True):
        axes.annotate(word, (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)


def _kind_legend(axes: Axes, kinds: Sequence[str]) -> None:
    for name in (name for name in KINDS if name in kinds):
        axes.scatter([], [], color=KINDS[name], label=name, marker="s", s=16)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Above the drawing, where it hides nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.02, 1), ncols=5, handletextpad=0.1, columnspacing=0.9)


def _plain(axis: Axis) -> None:
    """Numbers on a logarithmic axis as one writes them; of many decades every other one."""
    low, high = np.log10(axis.get_view_interval())
    axis.set_major_locator(LogLocator(base=100 if high - low > 4 else 10))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def layers(found: dict, part: str) -> str:
    """The time of every block or layer of a network, and how much of what is possible it reaches."""
    rows = found[part]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(0.6 + 0.19 * len(rows))
        kinds = [kind(row["operations"]) for row in rows]
        words = [f"{row['of_possible']:.0%}" for row in rows]
        times = [1e3 * row["milliseconds"] for row in rows]
        _bars(axes, [short(row["name"]) for row in rows], times, [KINDS[name] for name in kinds], words)
        axes.set_xlabel("µs; beside the bar: of what is possible there")
        axes.margins(x=0.12)
        _kind_legend(axes, kinds)
        return _svg(figure, f"time of the {part} of {found['network']} on {plural(found['threads'], 'thread')}")


def short(name: str) -> str:
    """Of a fused block its blocks alone: ``stem+block1`` for ``stem+block1.depthwise+project``."""
    parts = name.split("+")
    return name if len(parts) == 1 else "+".join(dict.fromkeys(part.split(".")[0] for part in parts if _block(part)))


def _block(part: str) -> bool:
    return "." in part or part in ("stem", "head")


def roofline(roof: Roofline, found: dict) -> str:
    """Where the layers of a network stand below the machine's limits."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(3.6)
        points, unit = {}, UNITS[found.get("dtype", "float32")]
        for row in [*found["blocks"], *found["layers"]]:
            if row["macs"]:
                points.setdefault(kind(row["operations"]), []).append((2 * row["macs"] / row["bytes"], row["gflops"]))
        every = [point for some in points.values() for point in some]
        low, high = min(x for x, _ in every) / 2, max(x for x, _ in every) * 2
        intensity = np.geomspace(low, high, 100)
        for size, rate in (roof.levels[0], roof.levels[2], roof.levels[-1]):
            axes.plot(intensity, np.minimum(roof.gflops, intensity * rate), color=FAINT, linewidth=1)
            at = 1.1 * low
            axes.text(
                *(at, 1.08 * at * rate, f"{binary_size(size)}: {rate:.0f} GB/s"),
                **{"fontsize": 7.5, "rotation": np.degrees(np.arctan(rate)), "rotation_mode": "anchor"},
                transform_rotates_text=True,
            )
        axes.text(high, 1.06 * roof.gflops, f"peak {roof.gflops:.0f} {unit}", ha="right", fontsize=8)
        for name in (name for name in KINDS if name in points):
            axes.scatter(*zip(*points[name], strict=True), s=16, color=KINDS[name], label=name, zorder=3, alpha=0.85)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(min(y for _, y in every) / 2, 2 * roof.gflops)
        axes.set_xlabel("operations for each byte moved")
        axes.set_ylabel(unit)
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        _legend(axes)
        return _svg(figure, f"roofline of {found['network']} on {plural(found['threads'], 'thread')}")


def ladder(found: dict) -> str:
    """The speed-up of every rung over the lowest one, on a logarithmic scale."""
    rows = found["rows"]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(0.55 + 0.26 * len(rows))
        words = [f"×{row['speedup']:,.0f}, {row['gflops']:.2g} GFLOP/s" for row in rows]
        colors = [KINDS["fused block"] if row["error"] is None else KINDS["pointwise"] for row in rows]
        _bars(axes, [row["rung"] for row in rows], [row["speedup"] for row in rows], colors, words)
        axes.set_xscale("log")
        room = 30 * 10 ** (max(0, max(len(row["rung"]) for row in rows) - 12) / 10)  # long names leave bars less
        axes.set_xlim(0.8, room * max(row["speedup"] for row in rows))
        _plain(axes.xaxis)
        axes.set_xlabel("speed-up over the lowest rung, logarithmic")
        return _svg(figure, f"ladder of {found['operation']} on {plural(found['threads'], 'thread')}")


def peers(found: dict) -> str:
    """The time of a network in every runtime."""
    rows = fastest_variants(found["rows"])
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(0.55 + 0.26 * len(rows))
        ours = [row["runtime"] == "npmobilenet" for row in rows]
        colors = [KINDS["fused block"] if mine else KINDS["other"] for mine in ours]
        words = [
            f"{row['milliseconds']:.1f} ms" + ("" if mine else f" (×{1 / row['ours_over_this']:.2f})")
            for row, mine in zip(rows, ours, strict=True)
        ]
        _bars(axes, [row["runtime"] for row in rows], [row["milliseconds"] for row in rows], colors, words)
        axes.margins(x=0.25)
        axes.set_xlabel("milliseconds; in brackets: times as long as npmobilenet")
        threads, batch = plural(found["threads"], "thread"), found["batch"]
        return _svg(figure, f"{found['network']} in several runtimes, batch {batch}, {threads}")
