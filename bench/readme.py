"""Write the README's table of measurements from a saved run, between its markers.

python -m npmobilenet.bench.peers --networks mobilenet_v2-1.0-224 --batches 1,32 --json peers.json
python -m npmobilenet.bench.readme peers.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from npmobilenet.bench.peers.measure import NOISY, OURS
from npmobilenet.bench.peers.report import fastest_variants, heading
from npmobilenet.bench.peers.runtimes import RUNTIMES

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- begin: bench/readme.py -->", "<!-- end: bench/readme.py -->"


def table(run: dict) -> Iterator[str]:
    """A row for each batch size and number of threads, a column for each runtime."""
    comparisons = run["comparisons"]
    first = comparisons[0]
    packages = [RUNTIMES[row["runtime"]].package for row in fastest_variants(first["rows"])]
    yield f"| {first['network']}, milliseconds | {' | '.join(packages)} |"
    yield "|" + " --- |" * (len(packages) + 1)
    for found in sorted(comparisons, key=lambda found: (found["batch"], found["threads"])):
        rows = {RUNTIMES[row["runtime"]].package: row for row in fastest_variants(found["rows"])}
        cells = [_cell(rows[package]) for package in packages]
        threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
        yield f"| batch {found['batch']}, {threads} | {' | '.join(cells)} |"


def _cell(row: dict) -> str:
    noise = " ~" if row["spread"] > NOISY else ""
    if row["runtime"] == OURS:
        return f"**{row['milliseconds']:.1f}** ({row['of_peak']:.0%} of the CPU's peak){noise}"
    return f"{row['milliseconds']:.1f} (×{1 / row['ours_over_this']:.2f}){noise}"


def write(run: dict, readme: Path = README) -> None:
    """Replace what stands between the markers.

    Raises
    ------
    ValueError
        If the file does not have both markers.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} has no lines {BEGIN} and {END}")
    about = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    lines = [*table(run), "", f"Measured on: {'; '.join(heading(run))}. Versions: {about}."]
    readme.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), encoding="utf-8")


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
