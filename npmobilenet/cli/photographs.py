"""What commands do with photographs: find them, read them ahead, compute them in batches, report what fails."""

from __future__ import annotations

import glob
import os
import select
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any

from npmobilenet.cli import terminal
from npmobilenet.errors import ImageError
from npmobilenet.machine import available_cpus
from npmobilenet.streaming.ahead import prepared_ahead
from npmobilenet.streaming.files import LIST_MARK, is_archive, matches, not_a_path, walk
from npmobilenet.text import plural, printable, to_json

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.model import Model

STANDARD_INPUT = "-"
IMAGES_HELP = "image file, folder (with its subfolders), glob, or - for standard input"
WITH_OUT = "is read by classify, features and detect with --out FILE"
BATCH_PER_THREAD = 4  # photographs
BATCH_BYTES = 1 << 28  # of inputs, where these are large


@dataclass(frozen=True)
class Photograph:
    """A file, or standard input; or why there is none under this name."""

    name: str
    problem: str | None = None

    def failure(self, problem: str) -> str:
        """Say what is wrong with it, its name first."""
        name = printable(self.name)
        return f"{name if name.strip() else repr(self.name)}: {problem}"

    def read(self) -> np.ndarray:
        """Return the picture, uint8 (H, W, 3).

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        from npmobilenet.image import read_image

        if self.problem:
            raise ImageError(self.failure(self.problem))
        if self.name != STANDARD_INPUT:
            return read_image(self.name)
        if sys.stdin is not None and sys.stdin.isatty():
            raise ImageError("standard input is a terminal: pipe a photograph into it")
        return read_image(StandardInput())


class StandardInput:
    """The bytes of standard input.

    Not by its buffer: a thread that waits there for more when the process ends would make Python abort.
    """

    name = "standard input"

    def __init__(self) -> None:
        if sys.stdin is None:
            raise ImageError("standard input is closed")

    def read(self, size: int) -> bytes:
        """Return at most so many bytes; none at the end."""
        try:
            return os.read(sys.stdin.fileno(), size)
        except BlockingIOError:  # who gave it to us has told it not to wait
            select.select([sys.stdin], [], [])
            return self.read(size)
        except (OSError, ValueError) as error:
            raise ImageError(f"standard input cannot be read: {terminal.reason(error)}") from None


# --- Finding -----------------------------------------------------------------------------------------------


def find_images(arguments: Iterable[str]) -> list[Photograph]:
    """Return the photographs that files, folders and globs name, in this order; what names none has a problem.

    A folder's are those of all its subfolders whose suffix is a photograph's; hidden files and folders have none, and
    pipes and devices are none. What cannot be read here for want of a package is left out, and a line says so.
    """
    found = [photograph for argument in arguments for photograph in _find(argument)]
    if [photograph.name for photograph in found].count(STANDARD_INPUT) > 1:
        raise ValueError("standard input can be read once: give - once")
    return found


def _find(argument: str) -> list[Photograph]:
    if argument == STANDARD_INPUT:
        return [Photograph(argument)]
    if problem := not_a_path(argument):
        return [Photograph(argument, problem)]
    try:
        is_folder = S_ISDIR(os.stat(argument).st_mode)  # noqa: PTH116 - a path without its slashes were another name
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        missing = isinstance(error, FileNotFoundError)
        if missing and glob.has_magic(argument):
            return _matches(argument)
        if missing and argument.startswith(LIST_MARK) and Path(argument[len(LIST_MARK) :]).is_file():
            return [Photograph(argument, f"a list of names {WITH_OUT}")]
        return [Photograph(argument, f"cannot be opened: {terminal.reason(error)}")]
    if is_folder:
        return find_in_folder(argument)
    return [Photograph(argument, f"an archive {WITH_OUT}" if is_archive(argument) else None)]


def _matches(pattern: str) -> list[Photograph]:
    found = [Photograph(name) for name in sorted(set(matches(pattern))) if Path(name).is_file()]
    return found or [Photograph(pattern, "no file matches")]


def find_in_folder(folder: str, skipped: Counter[str] | None = None) -> list[Photograph]:
    """Return a folder's photographs.

    Parameters
    ----------
    skipped : Counter, optional
        Where files that cannot be read here are counted by their suffix, for :func:`report_skipped`; without it they
        are reported at once.
    """
    from npmobilenet.image import unreadable_suffixes

    unreadable = unreadable_suffixes()
    names: list[str] = []
    problems: list[Photograph] = []
    counts: Counter[str] = Counter() if skipped is None else skipped
    before = counts.total()
    for found in walk(folder):
        if isinstance(found, OSError):
            problems.append(Photograph(found.filename, f"cannot be opened: {terminal.reason(found)}"))
        elif (suffix := Path(found).suffix.lower()) in unreadable:
            counts[suffix] += 1
        else:
            names.append(found)
    if skipped is None:
        report_skipped(folder, counts)
    if not names and not problems:
        left_out = " that can be read here" if counts.total() > before else ""
        problems.append(Photograph(folder, f"no image files{left_out} in this folder"))
    return [*problems, *map(Photograph, names)]


def report_skipped(folder: str, skipped: Counter[str]) -> None:
    """Say how many files of which kinds were left out, and what would read them."""
    from npmobilenet.image import package_for

    if not skipped:
        return
    kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(skipped.items()))
    packages = " ".join(sorted({package_for(suffix) for suffix in skipped}))
    files = plural(skipped.total(), "file")
    terminal.warn(f"{printable(folder)}: {files} skipped ({kinds}): pip install {packages} to read them")


# --- Computing ---------------------------------------------------------------------------------------------


class Run:
    """A command's way through its photographs.

    Iterating yields each with its result, or with the exception that there is instead, in their order. Failures are
    printed on standard error and counted. Files are read by several threads while others are computed, in batches, so
    that no memory grows with their number.

    Parameters
    ----------
    photographs : sequence of Photograph
    models : sequence of Model
        Their inputs are made of each photograph.
    compute : callable
        Turns batches, one for each model, float32 (N, 3, H, W), into N results, of which some may be exceptions.
    prepare : callable, optional
        Makes of a picture, uint8 (H, W, 3), what is put together in these batches, if that is not the models' inputs.
    in_lists : bool
        Whether batches are lists of what is prepared, which may then differ in size, and be large: they are short.

    Attributes
    ----------
    failed : int
        How many so far.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        models: Sequence[Model],
        compute: Callable[..., Iterable[Any]],
        prepare: Callable[[np.ndarray], list[np.ndarray]] | None = None,
        in_lists: bool = False,
    ) -> None:
        self.photographs, self.models, self.compute, self.in_lists = photographs, models, compute, in_lists
        self.prepare = prepare or (lambda picture: [model.preprocess(picture) for model in models])
        self.failed = 0

    def __iter__(self) -> Iterator[tuple[Photograph, Any]]:
        for photograph, result in terminal.progress(self._results(), len(self.photographs), "image"):
            if isinstance(result, Exception):
                self.failed += 1
                terminal.warn(failure(photograph, result))
            yield photograph, result

    def show(
        self,
        as_json: bool,
        lines: Callable[[Any], Iterable[str]],
        item: Callable[[Any], dict[str, Any]],
        also: Callable[[Photograph, Any], None] | None = None,
    ) -> None:
        """Print the result of each as it comes: as lines under its name, or as an object of a JSON list.

        ``also`` is called with each photograph that has a result, and this, before it is printed.
        """
        before = "["
        for photograph, result in self:
            if also and not isinstance(result, Exception):
                also(photograph, result)
            if as_json:
                failed = isinstance(result, Exception)
                told = {"error": failure(photograph, result)} if failed else item(result)
                print(before + to_json({"image": photograph.name, **told}), end="", flush=True)
                before = ",\n "
            elif not isinstance(result, Exception):  # which is on standard error
                print(terminal.on_a_line(photograph.name))
                for line in lines(result):
                    print(line)
        if as_json:
            print("]" if before != "[" else "[]")

    def exit_code(self) -> int:
        """1 if something failed, and then a line says how much of how many."""
        if self.failed and len(self.photographs) > 1:
            terminal.warn(f"{self.failed} of {plural(len(self.photographs), 'image')} failed")
        return 1 if self.failed else 0

    def _results(self) -> Iterator[tuple[Photograph, Any]]:
        import numpy as np

        threads = min(max(model.threads for model in self.models), available_cpus())
        largest = sum(12 * model.preprocessing.crop[0] * model.preprocessing.crop[1] for model in self.models)
        per_thread, together = (1, list) if self.in_lists else (BATCH_PER_THREAD, np.stack)
        length = max(1, min(per_thread * threads, BATCH_BYTES // largest))
        prepared = prepared_ahead(self._inputs, self.photographs, min(threads, length), length)
        while batch := list(islice(prepared, length)):
            good = [inputs for _, inputs in batch if not isinstance(inputs, Exception)]
            results = iter(self.compute(*map(together, zip(*good, strict=True))) if good else ())
            for photograph, inputs in batch:
                yield photograph, inputs if isinstance(inputs, Exception) else next(results)

    def _inputs(self, photograph: Photograph) -> list[np.ndarray]:
        return self.prepare(photograph.read())


def failure(photograph: Photograph, error: Exception) -> str:
    """Say what is wrong with a photograph, its name first."""
    text = terminal.problem(error)
    return text if isinstance(error, ImageError) else photograph.failure(text)  # an ImageError names it
