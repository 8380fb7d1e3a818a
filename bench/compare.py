"""Two saved runs beside each other, with a verdict that knows the noise of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from npmobilenet.bench.machine import different_machines
from npmobilenet.bench.noise import spread, threshold, verdict
from npmobilenet.text import columns, plural


@dataclass(frozen=True)
class Row:
    """A time that both runs have.

    Attributes
    ----------
    table, name : str
        What it belongs to, and what it is.
    old, new : float
        Milliseconds, the medians of the rounds.
    noise : float
        The ratio up to which they do not differ: from the spreads of both, and from what the machine's own peak
        was in the rounds of each.
    """

    table: str
    name: str
    old: float
    new: float
    noise: float

    @property
    def ratio(self) -> float:
        """The new time, of the old one."""
        return self.new / self.old

    @property
    def verdict(self) -> str:
        """What the ratio says."""
        return verdict(self.ratio, self.noise)


def compare(old: dict, new: dict) -> list[Row]:
    """Return what two runs have in common.

    Raises
    ------
    ValueError
        If that is nothing.
    """
    before, after = dict(_times(old)), dict(_times(new))
    rows = []
    for (table, name), (times, peaks) in before.items():
        if (table, name) in after:
            times_now, peaks_now = after[table, name]
            drift = median(peaks) / median(peaks_now)
            noise = threshold(spread(times), spread(times_now)) * max(drift, 1 / drift)
            rows.append(Row(table, name, median(times), median(times_now), noise))
    if not rows:
        raise ValueError("the two runs have nothing in common: other networks, layers, threads or batches")
    return rows


def _times(run: dict) -> Iterator[tuple[tuple[str, str], tuple[list[float], list[float]]]]:
    """By table and name, the milliseconds of every round, and the machine's peak in these rounds."""
    for found in run.get("networks", ()):
        title = f"{found['network']}, batch {found['batch']}, {plural(found['threads'], 'thread')}"
        yield (title, "the network"), (found["round_milliseconds"], found["round_peaks"])
        yield from _rows(f"{title}, blocks fused", found, "blocks", "name")
        yield from _rows(f"{title}, layers unfused", found, "layers", "name")
    for found in run.get("ladders", ()):
        title = f"{found['operation']} {found['network']} {found['layer']}, {plural(found['threads'], 'thread')}"
        yield from _rows(title, found, "rows", "rung")
    for found in run.get("comparisons", ()):
        title = f"{found['network']}, batch {found['batch']}, {plural(found['threads'], 'thread')}, runtimes"
        yield from _rows(title, found, "rows", "runtime")


def _rows(
    title: str, found: dict, part: str, name: str
) -> Iterator[tuple[tuple[str, str], tuple[list[float], list[float]]]]:
    for row in found[part]:
        yield (title, row[name]), (row["round_milliseconds"], found["round_peaks"])


def table(old: dict, new: dict, rows: Sequence[Row]) -> Iterator[str]:
    """A comparison as text."""
    yield from _about(old, new)
    doubt = "?" if old.get("warnings") or new.get("warnings") else ""
    for title in dict.fromkeys(row.table for row in rows):
        mine = [row for row in rows if row.table == title]
        lines = [_cells(row.name, row.old, row.new, f"x {row.noise:.2f}", _word(row, doubt)) for row in mine]
        if title.endswith("fused"):
            lines.append(_cells("sum", sum(row.old for row in mine), sum(row.new for row in mine)))
        yield ""
        yield title
        yield ""
        yield from columns([("", "old ms", "new ms", "new/old", "noise", "verdict"), *lines])
    counts = {word: sum(row.verdict == word for row in rows) for word in ("faster", "slower")}
    yield ""
    yield (
        f"{counts['faster']} faster, {counts['slower']} slower, {len(rows) - sum(counts.values())} no difference "
        f"within noise; median of the ratios {median(row.ratio for row in rows):.3f}"
    )
    if doubt and any(counts.values()):
        yield "?: a run was noisy, so that another may say something else; repeat both while nothing else runs"


def _cells(name: str, old: float, new: float, noise: str = "", word: str = "") -> tuple[str, ...]:
    return name, f"{old:.3f}", f"{new:.3f}", f"{new / old:.3f}", noise, word


def _word(row: Row, doubt: str) -> str:
    return row.verdict + doubt * (row.verdict in ("faster", "slower"))


def _about(old: dict, new: dict) -> Iterator[str]:
    """What else differs between the runs, and what makes them doubtful."""
    for name, run in (("old", old), ("new", new)):
        limits = "; ".join(f"{plural(row['threads'], 'thread')} {row['gflops']:.0f} GFLOP/s" for row in run["limits"])
        yield f"{name}: {run['cpu']}, commit {run['commit']}, peak of {limits}"
    for what in different_machines(old, new):
        yield f"DIFFERENT MACHINES, so that the ratios do not tell what the programs do: {what}"
    for package in sorted(name for name in old["versions"] if old["versions"][name] != new["versions"].get(name)):
        yield f"different versions of {package}: {old['versions'][package]}, {new['versions'].get(package, 'none')}"
    for name, run in (("old", old), ("new", new)):
        for warning in run.get("warnings", ()):
            yield f"NOISY, the {name} run: {warning}"
