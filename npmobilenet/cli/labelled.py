"""Photographs whose labels are known: in folders named by class, or in a list."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from npmobilenet.cli import terminal
from npmobilenet.cli.photographs import (
    STANDARD_INPUT,
    Photograph,
    StandardInput,
    find_in_folder,
    report_skipped,
)
from npmobilenet.files import read_all
from npmobilenet.streaming.files import is_hidden, not_a_path
from npmobilenet.text import plural, printable, quote

if TYPE_CHECKING:
    from npmobilenet.labels import Labels

FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "path", "image", "image_path", "img", "name")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "y")
DELIMITERS = ",;\t"
LARGEST_LIST = 1 << 28  # bytes
UNKNOWN_SHOWN = 5


class Labelled(NamedTuple):
    """A photograph and the index of its class; None if its label is not known."""

    photograph: Photograph
    label: int | None


def labelled(source: str, labels: Labels) -> list[Labelled]:
    """Return the photographs of a folder of class folders, or of a list of files and labels.

    Raises
    ------
    ValueError
        If there are none, or a label is no class of the network.
    """
    if problem := source != STANDARD_INPUT and not_a_path(source):
        raise ValueError(f"{quote(source)}: {problem}")
    if source != STANDARD_INPUT and os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises for names too long
        return _of_folders(source, labels)
    return _of_list(source, labels)


def _of_folders(source: str, labels: Labels) -> list[Labelled]:
    with os.scandir(source) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    if not folders:
        raise ValueError(
            f"{printable(source)}: no class folders in it: expected a folder for each class, named after it or by its "
            "number, or a list of files and labels (.csv)"
        )
    indices = _indices(source, folders, labels)
    skipped: Counter[str] = Counter()
    found = [
        Labelled(photograph, indices[name])
        for name in folders
        for photograph in find_in_folder(str(Path(source, name)), skipped)
    ]
    report_skipped(source, skipped)
    return found


def _of_list(source: str, labels: Labels) -> list[Labelled]:
    folder = Path() if source == STANDARD_INPUT else Path(source).parent
    try:
        with nullcontext(StandardInput()) if source == STANDARD_INPUT else Path(source).open("rb") as file:
            text = read_all(file, LARGEST_LIST).decode("utf-8-sig")
        pairs = list(_pairs(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{printable(source)}: no list of files and labels: {terminal.reason(error)}") from None
    except ValueError as error:
        raise ValueError(f"{printable(source)}: {error}") from None
    if not pairs:
        raise ValueError(f"{printable(source)}: the list is empty: expected a file and its label on each line")
    indices = _indices(source, (label for _, label in pairs), labels)
    return [Labelled(_listed(folder, name), indices[label]) for name, label in pairs]


def _listed(folder: Path, name: str) -> Photograph:
    problem = not_a_path(name)
    return Photograph(name, problem) if problem else Photograph(str(folder / name))


def _pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The files and labels of a list: separated by commas, semicolons or tabs, in the columns that a header names.

    Without any of these in the first line that is not blank the label is what follows the last space, as in ImageNet's
    own lists.
    """
    lines = iter(lines)
    blank, first = next(((number, line) for number, line in enumerate(lines) if line.strip()), (0, ""))
    delimiter = next((one for one in DELIMITERS if one in first), None)
    together = chain([first], lines)
    rows = csv.reader(together, delimiter=delimiter) if delimiter else (line.rsplit(None, 1) for line in together)
    file, label, width = 0, 1, 2
    for number, row in enumerate(rows, blank + 1):
        cells = [cell.strip() for cell in row]
        if number == blank + 1 and (header := _header(cells)):
            file, label = header
            width = max(header) + 1
        elif any(cells):
            if len(cells) < width:
                raise ValueError(f"line {number} has no label: expected a file and its label on each line")
            yield cells[file], cells[label]


def _header(cells: list[str]) -> tuple[int, int] | None:
    """The columns of file and label, if these are names of columns."""
    names = [cell.lower() for cell in cells]
    files = [names.index(name) for name in FILE_COLUMNS if name in names]
    labels = [names.index(name) for name in LABEL_COLUMNS if name in names]
    return (files[0], labels[0]) if files and labels else None


def _indices(source: str, names: Iterable[str], labels: Labels) -> dict[str, int]:
    """Return the classes of these labels; all that are none are told at once."""
    meant = {name: labels.meant(name) for name in names}
    unknown = [name for name, indices in meant.items() if len(indices) != 1]
    if unknown:
        more = f" and {len(unknown) - UNKNOWN_SHOWN} more" if len(unknown) > UNKNOWN_SHOWN else ""
        are = "is" if len(unknown) == 1 else "are"
        raise ValueError(
            f"{printable(source)}: {plural(len(unknown), 'label')} {are} not of this network: "
            f"{', '.join(map(labels.problem, unknown[:UNKNOWN_SHOWN]))}{more}; a label is a class's name or number"
        )
    return {name: indices[0] for name, indices in meant.items()}
