"""The tables of the README and of the pages in docs/, written from saved runs between their markers.

A region is named after the module that makes its text, and what it is about:

* ``bench/readme.py``: a network in all runtimes (``npmobilenet bench --peers``); ``bench/readme.py int8``: of 8 bits,
* ``bench/ladder.py depthwise_conv2d``: a ladder (``npmobilenet bench --ladder depthwise``),
* ``bench/network.py mobilenet_v2-1.0-224``: a network layer by layer (``npmobilenet bench mobilenet_v2``),
* ``study/tiles.py sums``, ``study/tiles.py tiles``: those of a study (``npmobilenet study tiles --write-docs``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from npmobilenet.bench import markers, readme
from npmobilenet.bench.ladder import BLAS_THREADS, ENGINE, LAYERS, is_part, ladder_names, notes
from npmobilenet.bench.machine import heading
from npmobilenet.bench.noise import NOISY
from npmobilenet.bench.roofline import UNITS
from npmobilenet.text import dimensions, megabytes, plural

CHECKOUT = Path(__file__).parents[1]


def write(runs: Sequence[dict], folder: Path = CHECKOUT) -> list[str]:
    """Fill every region of a checkout's documents that the runs have something for; of two runs the later counts.

    Returns, raises: as :func:`fill`.
    """
    return fill(dict(_texts(runs)), folder)


def fill(texts: Mapping[str, Sequence[str]], folder: Path = CHECKOUT) -> list[str]:
    """Replace the lines of every region of a checkout's documents that there is a text for.

    Returns
    -------
    list of str
        What was written: files and regions.

    Raises
    ------
    ValueError
        If the folder is no checkout, or has no such region.
    """
    files = [folder / "README.md", *sorted((folder / "docs").rglob("*.md"))]
    if not files[0].is_file():
        raise ValueError(f"{folder} is no checkout of npmobilenet: there are no documents to write tables into")
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
    for dtype, region in readme.REGIONS.items():
        if readme.comparisons(peers, dtype):
            yield region, list(readme.lines(peers, dtype))
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


def _measured(run: dict, command: str, blas_threads: str | None = None) -> Iterator[str]:
    setting = f"{BLAS_THREADS}={blas_threads} " if blas_threads else ""
    yield ""
    yield f"`{setting}npmobilenet bench {command}` on {'; '.join(heading(run))}."
    if run.get("warnings"):
        yield f"Noisy: {'; '.join(run['warnings'])}."


def ladder(run: dict, operation: str) -> Iterator[str]:
    """A ladder, its rungs from the lowest up, a table for each layer with all numbers of threads."""
    layers: dict[tuple[str, str], list[dict]] = {}
    for found in run["ladders"]:
        if found["operation"] == operation:
            layers.setdefault((found["network"], found["layer"]), []).append(found)
    for (network, layer), founds in layers.items():
        least, *more = sorted(founds, key=lambda found: found["threads"])
        yield f"{network} {layer}, {plural(least['threads'], 'thread')}:".lstrip()
        yield ""
        yield from _ladder_table(least, more)
        yield ""
        yield from (f"{note[:1].upper()}{note[1:]}.  " for note in _ladder_notes(least, more))
        yield from _measured(run, _ladder_command(least, more), least["blas_threads"])


def _ladder_table(least: dict, more: Sequence[dict]) -> Iterator[str]:
    """Numbers; where a rung takes no threads, there is nothing to be said of several."""
    columns = [
        name
        for one in more
        for name in (f"ms, {plural(one['threads'], 'thread')}", f"over {plural(least['threads'], 'thread')}")
    ]
    keeps = any(row.get("between") for row in least["rows"])
    unit = UNITS[least.get("dtype", "float32")]
    yield from _header("version", "ms", "speed-up", unit, "of peak", *["between"] * keeps, *columns)
    others = [{row["rung"]: row for row in one["rows"]} for one in more]
    for row in least["rows"]:
        cells = []
        for rows in others:
            other = rows.get(row["rung"])
            if other and row["threads"]:
                cells += [_milliseconds(least, other), f"×{row['milliseconds'] / other['milliseconds']:.2f}"]
            else:
                cells += ["-", "-"]
        yield _row(
            f"`{row['rung']}`" if row["rung"] != ENGINE else row["rung"],
            _milliseconds(least, row),
            f"×{row['speedup']:,.{0 if row['speedup'] >= 100 else 1}f}",
            f"{row['gflops']:.3g}",
            f"{row['of_peak']:.1%}",
            *[megabytes(row["between"])] * keeps,
            *cells,
        )


def _milliseconds(found: dict, row: dict) -> str:
    time = row["milliseconds"]
    mark = " \\*" if is_part(found, row) else " ~" * (row["spread"] > NOISY)
    return (f"{time:.3g}" if time < 100 else f"{time:.0f}") + mark


def _ladder_notes(least: dict, more: Sequence[dict]) -> Iterator[str]:
    for note in dict.fromkeys(note for found in (least, *more) for note in notes(found, "`")):
        yield note.replace("* ", "\\* ", 1) if note.startswith("* ") else note
    if more:
        yield "-: takes no threads"
    if any(row["spread"] > NOISY for found in (least, *more) for row in found["rows"]):
        yield "~: varies between rounds"


def _ladder_command(least: dict, more: Sequence[dict]) -> str:
    short = next(name for name, known in ladder_names().items() if known == least["operation"])
    threads = ",".join(str(found["threads"]) for found in (least, *more))
    layer = f"{least['network']}/{least['name']}" if least["network"] else ""
    shape = f" --shape {layer}" if layer not in ("", LAYERS.get(least["operation"])) else ""
    return f"--ladder {short}{f' --threads {threads}' * (threads != '1')}{shape}"


def network(run: dict, name: str) -> Iterator[str]:
    """A network as it runs, block by block, a table for each number of threads."""
    for found in run["networks"]:
        if found["network"] != name:
            continue
        unit = UNITS[found.get("dtype", "float32")]
        yield (
            f"{plural(found['threads'], 'thread').capitalize()}, batch {found['batch']}: "
            f"{found['milliseconds']:.2f} ms, {found['gflops']:.0f} {unit}, {found['of_peak']:.0%} of the peak."
        )
        yield ""
        yield from _header("as it runs", "output", "MMACs", "µs", "share", unit, "of peak", "of possible")
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
    threads = ",".join(str(found["threads"]) for found in run["networks"] if found["network"] == name)
    dtype = " --dtype int8" * name.endswith(" int8")
    yield from _measured(run, name.split("-")[0] + dtype + f" --threads {threads}" * (threads != "1"))
