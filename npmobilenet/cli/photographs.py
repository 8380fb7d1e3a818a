"""What commands do with photographs: find them, read them ahead, compute them in batches, report what fails."""

from __future__ import annotations

import glob
import os
import re
import select
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from stat import S_ISDIR, S_ISREG
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from npmobilenet.cli import terminal
from npmobilenet.errors import ImageError, MissingDependencyError
from npmobilenet.machine import available_cpus
from npmobilenet.text import plural, printable, to_json

if TYPE_CHECKING:
    import numpy as np

    from npmobilenet.model import Model

STANDARD_INPUT = "-"
IMAGES_HELP = "image file, folder (with its subfolders), glob, or - for standard input"
NOT_PHOTOGRAPHS = "__MACOSX"  # what macOS puts into archives beside the files; other such folders begin with a dot
BATCH_PER_THREAD = 4  # photographs
BATCH_BYTES = 1 << 28  # of inputs, where these are large
SEPARATOR = f"/{re.escape(os.sep)}"
ANY_FOLDERS = re.compile(rf"(?:(?<![^{SEPARATOR}])\*\*(?:[{SEPARATOR}]+|$))+")  # ``**``; several are as good as one
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


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
        return [Photograph(argument, f"cannot be opened: {terminal.reason(error)}")]
    return find_in_folder(argument) if is_folder else [Photograph(argument)]


def not_a_path(argument: str) -> str | None:
    """Say why an argument can be no file or folder, if so."""
    if not argument:
        return "an empty argument is no file"
    if URL.match(argument):
        return "a URL is no file: download it first, nothing is fetched from a network here"
    return None


def _matches(pattern: str) -> list[Photograph]:
    found = [Photograph(name) for name in sorted(set(_glob(pattern))) if Path(name).is_file()]
    return found or [Photograph(pattern, "no file matches")]


def _glob(pattern: str) -> Iterator[str]:
    """What a pattern matches; ``**``, unlike that of `glob`, follows no links: two that lead back are endless ways."""
    before, *after = ANY_FOLDERS.split(pattern, maxsplit=1)
    if not after:
        yield from glob.iglob(pattern)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return
    for start in glob.iglob(before) if before else [""]:  # noqa: PTH207
        for where, folders, _ in os.walk(start or os.curdir):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = glob.escape(where if start else where[2:])  # without "./"
            yield from _glob(os.path.join(inside, after[0] or "*"))  # noqa: PTH118 - a path would lose a last slash


def find_in_folder(folder: str, skipped: Counter[str] | None = None) -> list[Photograph]:
    """Return a folder's photographs.

    Parameters
    ----------
    skipped : Counter, optional
        Where files that cannot be read here are counted by their suffix, for :func:`report_skipped`; without it they
        are reported at once.
    """
    from npmobilenet.image import IMAGE_SUFFIXES, unreadable_suffixes

    unreadable = unreadable_suffixes()
    names: list[str] = []
    problems: list[Photograph] = []
    counts: Counter[str] = Counter() if skipped is None else skipped
    before = counts.total()

    def refuse(error: OSError) -> None:
        problems.append(Photograph(error.filename, f"cannot be opened: {terminal.reason(error)}"))

    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in files:
            suffix = Path(name).suffix.lower()
            if suffix not in IMAGE_SUFFIXES or is_hidden(name):
                continue
            path = str(Path(where, name))
            if suffix in unreadable:
                counts[suffix] += 1
            elif not _is_special(path):
                names.append(path)
    if skipped is None:
        report_skipped(folder, counts)
    if not names and not problems:
        left_out = " that can be read here" if counts.total() > before else ""
        problems.append(Photograph(folder, f"no image files{left_out} in this folder"))
    return [*problems, *map(Photograph, sorted(names))]


def _is_special(path: str) -> bool:
    """Whether this is a pipe, a socket or a device. What cannot be told is told when it is opened."""
    try:
        return not S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none that a user put there: macOS's sidecars ``._IMG.jpg``, thumbnails, the trash."""
    return name.startswith(".") or name == NOT_PHOTOGRAPHS


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


def prepared_ahead(
    prepare: Callable[[Photograph], Any], photographs: Iterable[Photograph], threads: int, length: int
) -> Iterator[tuple[Photograph, Any]]:
    """Yield each photograph with what ``prepare`` makes of it, or the exception that it raises, in their order.

    Up to ``length`` are prepared ahead, by threads that nothing waits for at exit. What none of them has begun when it
    is needed the caller does itself: all, where no thread may be started.
    """
    tasks: SimpleQueue[_Task | None] = SimpleQueue()
    helpers = 0
    for _ in range(threads):
        try:
            Thread(target=_work, args=(tasks,), daemon=True).start()
        except RuntimeError:  # the system allows no more
            break
        helpers += 1
    ahead: deque[_Task] = deque()
    coming = iter(photographs)
    try:
        while True:
            for photograph in islice(coming, length + 1 - len(ahead)):
                ahead.append(_Task(prepare, photograph))
                tasks.put(ahead[-1])
            if not ahead:
                return
            yield ahead.popleft().finish()
    finally:
        for task in ahead:
            task.claim()  # so that nobody begins what is not wanted any more
        for _ in range(helpers):
            tasks.put(None)


class _Task:
    """A photograph to be prepared by whoever claims it first."""

    def __init__(self, prepare: Callable[[Photograph], Any], photograph: Photograph) -> None:
        self._prepare, self._photograph = prepare, photograph
        self._claimed, self._done = Lock(), Event()

    def claim(self) -> bool:
        return self._claimed.acquire(blocking=False)

    def work(self) -> None:
        if self.claim():
            try:
                self._result = self._prepare(self._photograph)
            except Exception as error:
                self._result = error.with_traceback(None)  # which would keep the whole picture
            self._done.set()

    def finish(self) -> tuple[Photograph, Any]:
        """Return the result; a missing package is missing for all that follow, too."""
        self.work()
        self._done.wait()
        if isinstance(self._result, MissingDependencyError):
            raise self._result
        return self._photograph, self._result


def _work(tasks: SimpleQueue[_Task | None]) -> None:
    while task := tasks.get():
        task.work()
