"""One run of a command: the machine, and what was found, printed as it comes and written as JSON and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from npmobilenet.bench import machine_limits, noise
from npmobilenet.bench.machine import different_machines, heading, machine
from npmobilenet.bench.roofline import PEAKS, Roofline
from npmobilenet.text import to_json

KINDS = ("networks", "ladders", "comparisons", "processes")
"""What a saved run may have a list of: `network`, `ladder`, `peers` (the last two)."""


class Record:
    """A run in the making.

    Parameters
    ----------
    threads : sequence of int
        The machine's limits are probed with each of these.
    kinds : sequence of str
        The lists that the file has.
    settings : dict
        How it was measured.
    json, csv : Path, optional
        Where it is written at the end.

    Attributes
    ----------
    about : dict
        The machine.
    load : float or None
        The load average before the run.
    found : dict of str to list
        What the file has besides.
    """

    def __init__(
        self,
        threads: Sequence[int],
        kinds: Sequence[str],
        settings: dict,
        json: Path | None = None,
        csv: Path | None = None,
    ) -> None:
        self.files = {json: self._write_json, csv: self._write_csv}
        for file in filter(None, self.files):
            check_writable(file)
        self.settings = settings
        self.load = noise.load()
        self.about = machine(machine_limits.limits(threads))
        self.found: dict[str, list] = {kind: [] for kind in (*kinds, "left_out")}
        self.say(heading(self.about))

    def say(self, lines: Iterable[str]) -> None:
        """Print lines."""
        print("\n".join(line.rstrip() for line in lines), flush=True)

    def left_out(self, line: str) -> None:
        """Say that something is left out, and why; the same is said once."""
        if line not in self.found["left_out"]:
            self.found["left_out"].append(line)
            self.say([line])

    def roof(self, threads: int, dtype: str = "float32") -> Roofline:
        """The machine's limits for so many threads: the highest seen so far."""
        return Roofline.of(self._limits(threads), dtype)

    def _limits(self, threads: int) -> dict:
        return next(row for row in self.about["limits"] if row["threads"] == threads)

    def raise_roof(self, threads: int, *peaks: float, dtype: str = "float32") -> Roofline:
        """Take further peaks into account, in 10^9 operations: the machine may have been busy when it was probed."""
        row = self._limits(threads)
        row[PEAKS[dtype]] = max(row[PEAKS[dtype]], *peaks)
        return self.roof(threads, dtype)

    def probe_again(self, threads: int) -> None:
        """Likewise the bandwidths."""
        for level, again in zip(self._limits(threads)["levels"], machine_limits.levels(threads), strict=True):
            level["gbytes"] = max(level["gbytes"], again["gbytes"])

    def warn(self) -> None:
        """Say why the figures are doubtful, if they are."""
        for warning in self.warnings:
            self.say([f"NOISY: {warning}"])

    @property
    def warnings(self) -> list[str]:
        """Why the figures are doubtful, if they are."""
        found = [*self.found.get("networks", ()), *self.found.get("ladders", ())]
        spreads = [one["spread"] for one in found if "spread" in one]
        spreads += [median(row["spread"] for row in one["rows"]) for one in self.found.get("ladders", ())]
        more = [row["threads"] for row in self.about["limits"] if row["threads"] > self.about["cpus"]]
        crowded = [f"{max(more)} threads on {self.about['cpus']} CPUs wait for each other"] if more else []
        return crowded + list(noise.warnings(spreads, max((one["peak_spread"] for one in found), default=1), self.load))

    @property
    def run(self) -> dict:
        """All of it, as the JSON file has it."""
        return {**self.about, "settings": self.settings, "warnings": self.warnings, **self.found}

    def _write_json(self, file: Path) -> None:
        file.write_text(to_json(self.run, indent=1) + "\n", encoding="utf-8")

    def _write_csv(self, file: Path) -> None:
        write_csv(self.run, file)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *exception: object) -> None:
        """Write the files, so that what was measured before Ctrl+C is not lost."""
        for file, write in self.files.items():
            if file:
                write(file)


def check_writable(file: Path) -> None:
    """Find out before minutes of measuring whether a file can be written; leave none behind that was not there.

    Raises
    ------
    ValueError
        If it cannot.
    """
    there = file.exists()
    try:
        with file.open("a"):
            pass
        if not there:
            file.unlink()
    except OSError as error:
        raise ValueError(f"{file}: cannot be written: {error.strerror}") from None


def write_csv(run: dict, file: Path) -> None:
    """Write the rows of a run as a table."""
    lines = list(flat(run))
    names = dict.fromkeys(name for line in lines for name in line)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(lines)


def read(file: Path) -> dict:
    """Read a saved run.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{file}: not a saved run: {reason}") from None
    if not isinstance(run, dict) or "cpu" not in run or not any(run.get(kind) for kind in KINDS):
        raise ValueError(f"{file}: not a saved run: it has none of {', '.join(KINDS)} (make one with --json)")
    return run


def merged(runs: Sequence[dict]) -> dict:
    """Make one run of several of the same machine; what they say of it is taken from the last, the highest limits.

    Raises
    ------
    ValueError
        If they are of different machines.
    """
    for run in runs:
        different = different_machines(runs[-1], run)
        if different:
            raise ValueError(f"these are runs of different machines ({'; '.join(different)})")
    limits: dict[int, dict] = {}
    for row in (row for run in runs for row in run["limits"]):
        known = limits.setdefault(row["threads"], row)
        if row["gflops"] > known["gflops"]:
            limits[row["threads"]] = row
    found = {kind: [one for run in runs for one in run.get(kind, ())] for kind in KINDS}
    warnings = dict.fromkeys(warning for run in runs for warning in run.get("warnings", ()))
    return {**runs[-1], "limits": [limits[threads] for threads in sorted(limits)], "warnings": [*warnings], **found}


def flat(run: dict) -> Iterator[dict]:
    """The rows of a run, each with what the whole it belongs to is called: plain values only."""
    for kind in KINDS:
        for found in run.get(kind, ()):
            common = {"kind": kind, "cpu": run["cpu"], "commit": run["commit"], **_plain(found)}
            yield common
            for part in ("blocks", "layers", "rows"):
                for row in found.get(part, ()):
                    yield {**common, "part": part, **_plain(row)}


def _plain(found: dict) -> dict:
    return {name: value for name, value in found.items() if not isinstance(value, (list, dict))}
