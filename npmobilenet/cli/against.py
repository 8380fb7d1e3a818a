"""``npmobilenet inspect --against``: a network node by node beside another backend, or values saved from PyTorch."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from npmobilenet.backends import BACKENDS, current_name
from npmobilenet.cli.network import find_model
from npmobilenet.cli.photographs import STANDARD_INPUT, StandardInput
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.errors import CheckpointError
from npmobilenet.graph import INPUT
from npmobilenet.streaming.files import not_a_path
from npmobilenet.text import columns, dimensions, listed, plural, printable, quote, to_json

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.comparison import Comparison, Row
    from npmobilenet.model import Model

SEED = 0


def compare(options: argparse.Namespace) -> int:
    """Print the comparison; the exit code is 1 if a node is beyond its tolerance."""
    from npmobilenet.comparison import against_backend, against_values

    against = current_name(options.against)
    model = find_model(options.model, options)
    how = {"limit": options.tolerance, "threads": options.threads}
    if against in BACKENDS:
        x, given = _input(model, options)
        found = against_backend(model, x, against, **how)
    else:
        given = "the file's"
        try:
            x, values, others = _values(model, options)
            found = against_values(model, x, values, **how)
        except CheckpointError:
            raise
        except ValueError as error:
            raise ValueError(f"{on_a_line(options.against)}: {error}") from None
        found.left_out.update(others)
        against = on_a_line(options.against)
    title = f"{on_a_line(model.source)}: {model.architecture}, width {model.width:g}"
    if options.json:
        print(to_json(_report(model, found, title, against, given, x), indent=1))
    else:
        threads = plural(options.threads or model.threads, "thread")
        print(f"{title}\n{model.backend} on {threads} against {against}, input {given}: {dimensions(x.shape)}\n")
        _print(found)
    return 1 if found.beyond else 0


def _input(model: Model, options: argparse.Namespace) -> tuple[np.ndarray, str]:
    """A batch of one, and in words what it is."""
    import numpy as np

    if options.photo is None:
        size = options.resolution or model.preprocessing.crop
        random = np.random.default_rng(SEED).standard_normal((1, model.graph.in_channels, *size))
        return random.astype(np.float32), f"random numbers (seed {SEED})"
    if options.resolution:
        raise ValueError("--resolution is for random numbers; a photograph is prepared as the weights say")
    if problem := not_a_path(options.photo):
        raise ValueError(f"{quote(options.photo)}: {problem}")
    photo = StandardInput() if options.photo == STANDARD_INPUT else options.photo
    return model.preprocess(photo)[None], f"{on_a_line(options.photo)}, prepared as the weights say"


def _values(model: Model, options: argparse.Namespace) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, str]]:
    """The input in a file, the values, and what else is in there."""
    from npmobilenet.checkpoints.reader import read_arrays
    from npmobilenet.model import checked_input

    if problem := not_a_path(options.against):
        raise ValueError(problem)
    if not Path(options.against).exists():
        raise ValueError(f"neither a backend ({', '.join(BACKENDS)}) nor an .npz file that exists")
    if options.photo or options.resolution:
        what = "photograph" if options.photo else "--resolution"
        raise ValueError(f"its values were computed from the input that it holds, so that there can be no {what}")
    values, others = read_arrays(options.against)
    if INPUT not in values:
        held = ", ".join(listed([quote(name) for name in values], 3)) or "nothing"
        what = f"its {INPUT!r} is {others[INPUT]}" if INPUT in others else f"holds no {INPUT!r}, but {held}"
        raise ValueError(f"{what}; expected the batch (N, C, H, W) from which its values were computed")
    try:
        x = checked_input(values.pop(INPUT), model.graph.in_channels, model.backend)
    except ValueError as error:
        raise ValueError(f"its {INPUT!r} as x: {error}") from None
    if not values:
        why = (
            ": " + "; ".join(listed([f"{quote(name)} is {what}" for name, what in others.items()], 3)) if others else ""
        )
        raise ValueError(f"holds no values to compare beside its {INPUT!r}{why}")
    return x, values, others


def _report(model: Model, found: Comparison, title: str, against: str, given: str, x: np.ndarray) -> dict:
    """What JSON says."""
    rows = [asdict(row) for row in found.rows]
    return {
        "network": title,
        "backend": model.backend,
        "against": against,
        "input": {"from": given, "shape": x.shape},
        "nodes": rows,
        "beyond": len(found.beyond),
        "first_beyond": next((row for row in rows if row["beyond"]), None),
        "not_compared": found.left_out,
        "without_reference": found.without,
        "plain_loops": model.plain_layers,
    }


def _print(found: Comparison) -> None:
    """Print one line per value, then what it comes to, then what was not compared."""
    header = ("node", "operation", "PyTorch's", "output", "largest error", "of largest", "mean error", "tolerance", "")
    first = next(iter(found.beyond), None)
    lines = [_cells(row, row is first) for row in found.rows]
    drop = [] if any(row.module for row in found.rows) else [2]
    table = [[cell for column, cell in enumerate(line) if column not in drop] for line in (header, *lines)]
    for line in columns(([*line[:-1]] for line in table), texts=4 - len(drop)):
        mark = table.pop(0)[-1]
        print(f"{line}  {mark}".rstrip())
    nodes = len({row.node for row in found.rows})
    values = f" in {plural(len(found.rows), 'value')}" if len(found.rows) != nodes else ""
    print(f"\n{plural(nodes, 'node')} compared{values}")
    if first:
        where = f" ({printable(first.module)})" if first.module else ""
        print(f"first beyond its tolerance: {first.node}{where}, {_amount(first)}; {len(found.beyond)} in all")
    else:
        worst = max(found.rows, key=lambda row: row.relative)
        print(f"all within their tolerance; the largest error: {worst.node}, {_amount(worst)}")
    if found.without:
        print(f"without a value to compare with: {', '.join(listed(found.without, 20))}")
    for reason in dict.fromkeys(found.left_out.values()):
        names = [name for name, why in found.left_out.items() if why == reason]
        print(f"not compared, {reason}: {', '.join(listed(_by_ending(names), 20))}")


def _cells(row: Row, first: bool) -> tuple[str, ...]:
    numbers = (f"{value:.2e}" for value in (row.largest, row.relative, row.mean, row.tolerance))
    mark = "  ".join(filter(None, (row.note, "<- first beyond" if first else "beyond" if row.beyond else "")))
    return row.node, row.operation, printable(row.module, 60), dimensions(row.shape), *numbers, mark


def _amount(row: Row) -> str:
    return row.note if row.largest == float("inf") and row.note else f"{row.relative:.1e} of its largest value"


def _by_ending(names: list[str]) -> list[str]:
    """Names; those that end alike as one, and how many these are."""
    endings = Counter(name.rpartition(".")[2] for name in names)
    alike = {ending for ending, count in endings.items() if count > 1 and not ending.isdecimal()}
    singles = [quote(name, 60) for name in names if name.rpartition(".")[2] not in alike]
    return [*singles, *(f"{quote('*.' + ending, 60)} ({endings[ending]})" for ending in endings if ending in alike)]
