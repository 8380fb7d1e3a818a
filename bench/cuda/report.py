"""What was measured, as Markdown; and that between the markers of docs/cuda.md.

python -m npmobilenet.bench.cuda --out results
python -m npmobilenet.bench.cuda.report results/cuda.json docs/cuda.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

BEGIN, END = "<!-- begin: bench/cuda -->", "<!-- end: bench/cuda -->"

Column = tuple[str, Callable[[dict], str]]


def number(key: str, form: str = ".1f") -> Callable[[dict], str]:
    """A cell with a number, or none where it was not measured."""
    return lambda row: "" if row.get(key) is None else format(row[key], form)


MEMORY_BOUND: tuple[Column, ...] = (
    ("layer", lambda row: row["layer"]),
    ("dtype", lambda row: row["dtype"]),
    ("µs", number("microseconds")),
    ("GB/s", number("gbytes", ".0f")),
    ("% of a large copy", number("of_copy", ".0%")),
    ("% of a copy of as many bytes", number("of_copy_of_as_many_bytes", ".0%")),
)
PRODUCTS: tuple[Column, ...] = (
    ("layer", lambda row: row["layer"]),
    ("dtype", lambda row: row["dtype"]),
    ("µs", number("microseconds")),
    ("TFLOP/s", number("tflops", ".2f")),
    ("GB/s", number("gbytes", ".0f")),
    ("cuBLAS TFLOP/s", number("cublas_tflops", ".2f")),
    ("speed over cuBLAS", number("cublas_over_ours", ".2f")),
)
BLOCKS: tuple[Column, ...] = (
    ("block", lambda row: row["layer"]),
    ("dtype", lambda row: row["dtype"]),
    ("three launches, µs", number("three_microseconds")),
    ("one launch, µs", number("one_microseconds")),
)
NETWORKS: tuple[Column, ...] = (
    ("network", lambda row: row["network"]),
    ("batch", lambda row: str(row["batch"])),
    ("runtime", lambda row: row["runtime"]),
    ("dtype", lambda row: row["dtype"]),
    ("images/s", number("images_per_second", ".0f")),
    ("latency, ms", number("latency_milliseconds", ".3f")),
    ("TFLOP/s", number("tflops", ".2f")),
    ("largest difference", number("difference", ".0e")),
    ("", lambda row: row.get("failed", "")),
)
LAYERS: tuple[Column, ...] = (
    ("network", lambda row: row["network"]),
    ("batch", lambda row: str(row["batch"])),
    ("launch", lambda row: row["layer"]),
    ("µs", number("microseconds")),
)
SECTIONS: dict[str, tuple[str, tuple[Column, ...]]] = {
    "depthwise": ("Depthwise layers, batch 32", MEMORY_BOUND),
    "mixed": ("Mixed depthwise layers, batch 32, one pass", MEMORY_BOUND),
    "pointwise": ("Pointwise layers, batch 32", PRODUCTS),
    "blocks": ("Inverted residuals, batch 32", BLOCKS),
    "networks": ("Whole networks at 224x224", NETWORKS),
}


def table(columns: tuple[Column, ...], rows: list[dict]) -> Iterator[str]:
    """A Markdown table."""
    yield "| " + " | ".join(title for title, _ in columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(cell(row) for _, cell in columns) + " |"


def markdown(run: dict) -> Iterator[str]:
    """All of a run but the time of each launch, which is long."""
    about = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"{about['device']}; {about['system']}; {versions}; commit {about['commit'] or 'unknown'}; {about['date']}."
    yield ""
    for key, title in (("kernels", "kernel cases"), ("right_networks", "networks")):
        rows = run.get(key) or []
        if rows:
            worst = {
                dtype: max((row["error"] for row in rows if row["dtype"] == dtype), default=0)
                for dtype in sorted({row["dtype"] for row in rows})
            }
            errors = ", ".join(f"{dtype} {value:.1e}" for dtype, value in worst.items())
            yield (
                f"- {sum(row['right'] for row in rows)} of {len(rows)} {title} right; "
                f"largest error, as a part of the largest value: {errors}"
            )
            for row in rows:
                if not row["right"]:
                    yield f"  - WRONG: {row['what']}, {row['dtype']}: {row['error']:.1e}, allowed {row['allowed']:.0e}"
    if run.get("copy_gbytes"):
        yield f"- Copy from device to device: {run['copy_gbytes']:.0f} GB/s (read and written)"
    for note in run["notes"]:
        yield f"- {note}"
    for key, (title, columns) in SECTIONS.items():
        if run.get(key):
            yield from ("", f"### {title}", "", *table(columns, run[key]))


def launches(run: dict) -> Iterator[str]:
    """The time of each launch of the networks."""
    yield from table(LAYERS, run.get("launches") or [])


def write_into(document: Path, lines: list[str]) -> None:
    """Replace what stands between a document's markers.

    Raises
    ------
    ValueError
        If it does not have both.
    """
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines {BEGIN} and {END}")
    document.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]), encoding="utf-8")


if __name__ == "__main__":
    write_into(Path(sys.argv[2]), list(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
