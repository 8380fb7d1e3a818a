"""What was measured, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from npmobilenet.bench.noise import NOISY
from npmobilenet.bench.peers.measure import OURS
from npmobilenet.bench.roofline import UNITS
from npmobilenet.bench.runtimes import RUNTIMES


def _label(row: dict) -> str:
    return f"{row['runtime']} {row['version'].partition('+')[0]}"


def fastest_variants(rows: Sequence[dict]) -> list[dict]:
    """Of several ways to use one package keep the fastest; rows come fastest first."""
    best: dict[str, dict] = {}
    for row in rows:
        best.setdefault(RUNTIMES[row["runtime"]].package, row)
    return list(best.values())


def nearness(row: dict) -> str:
    """How near a runtime's result is: to ours, or, in 8 bits, to that of float32."""
    if "decibels" in row:
        return f"{row['decibels']:.1f}" + ("" if row["same"] is None else f" {row['same']:.0%}")
    return "" if row["runtime"] == OURS else f"{row['difference']:.0e}"


def comparison(found: dict) -> Iterator[str]:
    """One network on one number of threads at one batch size, as a table of at most 100 columns."""
    dtype = found.get("dtype", "float32")
    unit, near = UNITS[dtype], "dB, same" if dtype == "int8" else "max diff"
    yield ""
    yield (
        f"{found['network']} ({found['weights']} weights), batch {found['batch']}, threads {found['threads']}; "
        f"peak {found['peak_gflops']:.0f} {unit}"
    )
    yield f"  {'':<27}{'ms':>9}{'least':>9}{'images/s':>10}{unit:>9}{'of peak':>9}{'ours/this':>11}{near:>10}"
    for row in fastest_variants(found["rows"]):
        noise = " ~" if row["spread"] > NOISY else ""
        ratio = "" if row["runtime"] == OURS else f"{row['ours_over_this']:.2f}"
        yield (
            f"  {_label(row):<27}{row['milliseconds']:>9.2f}{row['least_milliseconds']:>9.2f}"
            f"{row['images_per_second']:>10.1f}{row['gflops']:>9.1f}{row['of_peak']:>9.0%}{ratio:>11}{nearness(row):>10}"
            f"{noise}"
        )
    worst = max(row["spread"] for row in found["rows"])
    if max(worst, found["peak_spread"]) > NOISY:
        yield (
            f"  ~ noisy: a runtime's medians vary by up to {worst:.2f}x between rounds, "
            f"the peak by {found['peak_spread']:.2f}x"
        )


def process_table(rows: Sequence[dict], startup: bool, memory: bool) -> Iterator[str]:
    """Start-up and memory of one network on one number of threads."""
    yield ""
    yield f"{rows[0]['network']}, threads {rows[0]['threads']}: a fresh process that loads it and runs one image"
    yield f"  {'':<27}" + f"{'seconds':>9}" * startup + f"{'MB at most':>12}" * memory
    for row in rows:
        used = f"{row['peak_bytes'] / 1e6:>12.0f}" if row["peak_bytes"] else f"{'?':>12}"
        yield f"  {row['runtime']:<27}" + f"{row['startup_seconds']:>9.2f}" * startup + used * memory
