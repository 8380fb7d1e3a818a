"""Write the README's table of measurements from saved runs, between its markers.

python -m npmobilenet.bench.peers --networks mobilenet_v2-1.0-224 --batches 1,32 --json peers.json
python -m npmobilenet.bench.readme peers.json [more.json ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from npmobilenet.bench import markers
from npmobilenet.bench.machine import measured_on
from npmobilenet.bench.noise import NOISY
from npmobilenet.bench.peers.measure import OURS
from npmobilenet.bench.peers.report import fastest_variants
from npmobilenet.bench.runtimes import RUNTIMES

README = Path(__file__).parents[1] / "README.md"
REGION = "bench/readme.py"
REGIONS = {"float32": REGION, "int8": f"{REGION} int8"}


def comparisons(runs: Sequence[dict], dtype: str = "float32") -> list[dict]:
    """Those of networks of one type."""
    return [found for run in runs for found in run["comparisons"] if found.get("dtype", "float32") == dtype]


def table(comparisons: Sequence[dict]) -> Iterator[str]:
    """A row for each network, batch size and number of threads, a column for each runtime."""
    by_package = [{RUNTIMES[row["runtime"]].package: row for row in fastest_variants(c["rows"])} for c in comparisons]
    packages = list(dict.fromkeys(package for rows in by_package for package in rows))
    yield f"| milliseconds | {' | '.join(packages)} |"
    yield "|" + " --- |" * (len(packages) + 1)
    networks = list(dict.fromkeys(found["network"] for found in comparisons))
    order = sorted(
        zip(comparisons, by_package, strict=True),
        key=lambda pair: (networks.index(pair[0]["network"]), pair[0]["batch"], pair[0]["threads"]),
    )
    for found, rows in order:
        threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
        cells = [_cell(rows[package]) if package in rows else "-" for package in packages]
        yield f"| {found['network']}, batch {found['batch']}, {threads} | {' | '.join(cells)} |"


def _cell(row: dict) -> str:
    after = (f", {row['decibels']:.1f} dB" if "decibels" in row else "") + " ~" * (row["spread"] > NOISY)
    if row["runtime"] == OURS:
        return f"**{row['milliseconds']:.1f}** ({row['of_peak']:.0%} of the CPU's peak){after}"
    return f"{row['milliseconds']:.1f} (×{1 / row['ours_over_this']:.2f}){after}"


def lines(runs: Sequence[dict], dtype: str = "float32") -> Iterator[str]:
    """The table of networks of one type, and what it was measured on; the runs are of one machine."""
    yield from table(comparisons(runs, dtype))
    yield ""
    yield measured_on(runs[0])


def write(runs: Sequence[dict], readme: Path = README) -> None:
    """Replace what stands between the markers; see :func:`lines`.

    Raises
    ------
    ValueError
        If the file does not have both markers.
    """
    markers.replace(readme, REGION, lines(runs))


if __name__ == "__main__":
    write([json.loads(Path(file).read_text(encoding="utf-8")) for file in sys.argv[1:]])
