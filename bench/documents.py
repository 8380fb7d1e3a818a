"""The tables of the README and of the pages in docs/, written from saved runs between their markers.

A region is named after the module that makes its text, and what it is about:

* ``bench/readme.py``: a network in all runtimes (``npmobilenet bench --peers``),
* ``bench/ladder.py depthwise_conv2d``: a ladder (``npmobilenet bench --ladder depthwise``),
* ``bench/network.py mobilenet_v2-1.0-224``: a network layer by layer (``npmobilenet bench mobilenet_v2``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from npmobilenet.bench import markers, readme
from npmobilenet.bench.ladder import ladder_names
from npmobilenet.bench.machine import heading
from npmobilenet.bench.noise import NOISY
from npmobilenet.text import dimensions, plural

CHECKOUT = Path(__file__).parents[1]


def write(runs: Sequence[dict], folder: Path = CHECKOUT) -> list[str]:
    """Fill every region of a checkout's documents that the runs have something for; of two runs the later counts.

    Returns
    -------
    list of str
        What was written: files and regions.

    Raises
    ------
    ValueError
        If the folder is no checkout, or there is no region that the runs have anything for.
    """
    files = [folder / "README.md", *sorted((folder / "docs").glob("*.md"))]
    if not files[0].is_file():
        raise ValueError(f"{folder} is no checkout of npmobilenet: there are no documents to write tables into")
    texts = dict(_texts(runs))
    written = []
    for file in files:
        for name in markers.regions(file):
            if name in texts:
                markers.replace(file, name, texts[name])
                written.append(f"{file.relative_to(folder)}: {name}")
    if not written:
        raise ValueError(f"no document has a region for {', '.join(texts) or 'these runs'}")
    return written


def _texts(runs: Sequence[dict]) -> Iterator[tuple[str, list[str]]]:
    """The name of a region, and its lines."""
    peers = [run for run in runs if run.get("comparisons")]
    if peers:
        yield readme.REGION, list(readme.lines(peers))
    for run in runs:
        for operation in dict.fromkeys(found["operation"] for found in run.get("ladders", ())):
            yield f"bench/ladder.py {operation}", list(ladder(run, operation))
        for name in dict.fromkeys(found["network"] for found in run.get("networks", ())):
            yield f"bench/network.py {name}", list(network(run, name))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _header(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*["---"] * len(names))


def _measured(run: dict, command: str) -> Iterator[str]:
    yield ""
    yield f"`npmobilenet bench {command}` on {'; '.join(heading(run))}."
    if run.get("warnings"):
        yield f"Noisy: {'; '.join(run['warnings'])}."


def ladder(run: dict, operation: str) -> Iterator[str]:
    """A ladder, its rungs from the lowest up, a table for each layer and number of threads."""
    short = next(name for name, known in ladder_names().items() if known == operation)
    for found in run["ladders"]:
        if found["operation"] != operation:
            continue
        yield f"{found['network']} {found['layer']}, {plural(found['threads'], 'thread')}:".lstrip()
        yield ""
        yield from _header("version", "ms", "speed-up", "GFLOP/s", "of peak", "largest error")
        for row in found["rows"]:
            part = row["channels_timed"] < found["channels"]
            noise = " ~" if row["spread"] > NOISY else f" (from {row['channels_timed']} channels)" if part else ""
            yield _row(
                f"`{row['rung']}`" if row["error"] is not None else row["rung"],
                f"{row['milliseconds']:.3g}{noise}"
                if row["milliseconds"] < 100
                else f"{row['milliseconds']:.0f}{noise}",
                f"×{row['speedup']:,.{0 if row['speedup'] >= 100 else 1}f}",
                f"{row['gflops']:.3g}",
                f"{row['of_peak']:.1%}",
                "" if row["error"] is None else f"{row['error']:.0e}",
            )
    yield from _measured(run, f"--ladder {short}")


def network(run: dict, name: str) -> Iterator[str]:
    """A network as it runs, block by block, a table for each number of threads."""
    for found in run["networks"]:
        if found["network"] != name:
            continue
        yield (
            f"{plural(found['threads'], 'thread').capitalize()}, batch {found['batch']}: "
            f"{found['milliseconds']:.2f} ms, {found['gflops']:.0f} GFLOP/s, {found['of_peak']:.0%} of the peak."
        )
        yield ""
        yield from _header("as it runs", "output", "MMACs", "µs", "share", "GFLOP/s", "of peak", "of possible")
        for row in found["blocks"] or found["layers"]:
            yield _row(
                row["name"].replace("+", " + "),
                dimensions((*row["output"][1:], row["output"][0])),
                f"{row['macs'] / 1e6:.1f}",
                f"{1e3 * row['milliseconds']:.0f}" + " ~" * (row["spread"] > NOISY),
                f"{row['share']:.1%}",
                f"{row['gflops']:.0f}",
                f"{row['of_peak']:.0%}",
                f"{row['of_possible']:.0%}",
            )
        yield ""
    yield from _measured(run, name.split("-")[0])
