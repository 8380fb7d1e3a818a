"""Around every command: the standard streams in whatever state they are, signals, and errors as one line.

Nothing here imports NumPy: an interrupt must find this module ready.
"""

from __future__ import annotations

import _thread
import errno
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

from npmobilenet.errors import AssumptionWarning, NpmobilenetError
from npmobilenet.kernels import compilers
from npmobilenet.text import printable

Item = TypeVar("Item")
LONGEST_LINE = 1000  # characters of an error
LONGEST_NAME = 10 * 4096  # of a file: what systems allow, each character escaped
PROGRESS_FROM = 8  # items: fewer are done before a progress bar could be read

_bar: Any = None  # the progress bar that is on the terminal, if there is one


class _Terminated(BaseException):
    """A signal that asks the process to end: cleaning up first, as Ctrl-C does."""


def run(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; whatever goes wrong is one line on standard error.

    0: done. 1: something failed, standard output too. 130: interrupted. A process that is asked to end (SIGTERM,
    SIGHUP) removes its temporary files and ends by that signal.
    """
    with _streams(), _signals(), _plain_warnings():
        try:
            try:
                return command()
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            warn("interrupted")
            return 130
        except _OutputError as error:
            if error.errno != errno.EPIPE:  # else the reader of a pipe, such as `head`, has seen enough
                warn(reason(error))
        except Exception as error:
            if sys.flags.dev_mode:
                sys.excepthook(*sys.exc_info())
            warn(problem(error))
        return 1


@contextmanager
def no_garbage() -> Iterator[None]:
    """Importing and loading make many objects that stay: looking for garbage among them, there or when the process
    ends, takes a tenth of the time of a single photograph."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def without_blas() -> None:
    """Let OpenBLAS start no threads, which wait busily for work, where NumPy is not there yet: no network calls it."""
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def problem(error: BaseException) -> str:
    """Say what went wrong."""
    text = str(error).strip()
    if isinstance(error, (NpmobilenetError, compilers.NoCompilerError, ValueError)):
        return text or type(error).__name__
    if isinstance(error, MemoryError):
        return f"out of memory{f': {text}' if text else ''}"
    if isinstance(error, OSError):
        return f"{printable(error.filename)}: {reason(error)}" if error.filename else reason(error)
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in compilers.NAMES:
        return f"this needs the compiler, which cannot be imported ({text}): pip install numba"
    kind = type(error).__name__
    return f"unexpected {kind}{f': {text}' if text else ''} (a mistake of this program; PYTHONDEVMODE=1 shows where)"


def reason(error: BaseException) -> str:
    """Why the system or a library refused something: without the file's name, on one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())


def on_a_line(name: str | os.PathLike) -> str:
    """A file's name, whole, as it can stand on a line: control characters and what is no UTF-8 escaped."""
    return printable(name, LONGEST_NAME)


def warn(message: str) -> None:
    """Print a message on standard error; a terminal gets no control characters, and no error comes of it."""
    first, *rest = map(line, message.split("\n"))
    try:
        if _bar is not None:
            _bar.clear()
        print("\n  ".join([f"npmobilenet: {first}", *rest]), file=sys.stderr, flush=True)
        if _bar is not None:
            _bar.refresh()
    except (OSError, ValueError):  # there is nobody to tell
        _silence(sys.stderr)


def line(text: str) -> str:
    """A line of an error: what is too long lacks its middle, since the reason stands at the end."""
    if len(text) > LONGEST_LINE:
        text = f"{text[: LONGEST_LINE // 2]}…{text[-LONGEST_LINE // 2 :]}"
    return printable(text, LONGEST_NAME)


def progress(
    items: Iterable[Item], total: int | Callable[[], Callable[[], int | None]], unit: str, done: int = 0
) -> Iterator[Item]:
    """Yield the items, with a progress bar on a terminal if tqdm is installed and there is enough to wait for.

    Parameters
    ----------
    total : int, or callable
        How many there are. What takes a while to count is counted only if a bar is shown: by a function that returns
        what tells how many they seem to be by now, None if nobody knows.
    done : int
        How many, beside the items, were done before.
    """
    global _bar
    if (isinstance(total, int) and total < PROGRESS_FROM) or not sys.stderr.isatty():
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from items
        return
    count = (lambda: total) if isinstance(total, int) else total()
    with tqdm(total=count(), unit=unit, file=sys.stderr, initial=done) as _bar:
        try:
            for item in items:
                yield item
                _bar.total = count()
                _bar.update()
        finally:
            _bar = None


# --- Streams -----------------------------------------------------------------------------------------------


class _OutputError(OSError):
    """Standard output cannot be written."""


class _Output:
    """Standard output whose errors can be told from those of other files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._tried(self._stream.write, text)

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, action: Callable[..., Any], *arguments: str) -> Any:
        try:
            if self._error is None:
                return action(*arguments)
        except OSError as error:
            self._error = error
            _silence(self._stream)
        text = "is closed" if self._error.errno == errno.EBADF else f"cannot be written: {reason(self._error)}"
        raise _OutputError(self._error.errno, f"standard output {text}")  # again, if argparse caught it the first time


@contextmanager
def _streams() -> Iterator[None]:
    """Put something where a standard stream is closed, and have characters that an encoding lacks escaped.

    Without this the next file that is opened would get the number of the closed one. Writing to standard output that
    was closed is an error, as it should be; what would go to standard error is lost.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # something else's object; a stream that is full
            stream.reconfigure(errors="backslashreplace")
    stdout, sys.stdout = sys.stdout, _Output(sys.stdout)
    try:
        yield
    finally:
        sys.stdout = stdout


def _silence(stream: TextIO) -> None:
    """Let the stream go nowhere, so that Python does not try again at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# --- Signals and warnings ----------------------------------------------------------------------------------


@contextmanager
def _signals() -> Iterator[None]:
    """Let the signals that ask a process to end raise, and end by the signal when all is cleaned up."""
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    mine = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    received = []

    def terminate(number: int, _: object) -> None:
        received.append(number)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = _interrupt_again
    for number in mine:
        signal.signal(number, terminate)
    try:
        yield
    except _Terminated:
        pass
    finally:
        sys.unraisablehook = hook
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
        if received:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            os.kill(os.getpid(), received[0])


def _interrupt_again(unraisable: Any) -> None:
    """Where Python can raise nothing (callbacks, finalizers) an interrupt would be printed and forgotten.

    It comes again from outside, a moment later: here nothing can be raised either.
    """
    again = {KeyboardInterrupt: signal.SIGINT, _Terminated: signal.SIGTERM}.get(unraisable.exc_type)
    if again is None:
        sys.__unraisablehook__(unraisable)
    else:
        threading.Timer(0.01, _thread.interrupt_main, [again]).start()


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings as lines of ours, without the place in the program; all that is assumed of a checkpoint."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        kind = "note" if issubclass(category, AssumptionWarning) else "warning"
        warn(f"{kind}: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", AssumptionWarning)
        warnings.filterwarnings("ignore", module=r"PIL\b")  # which do not say of what file; what is wrong is an error
        warnings.showwarning = show
        yield
