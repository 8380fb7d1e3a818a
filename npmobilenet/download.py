"""Downloading a file of known hash: resumed where it broke off, verified before it gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO, BinaryIO

from npmobilenet import __version__
from npmobilenet.errors import DownloadError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

BLOCK = 1 << 16


def download(
    url: str,
    destination: Path,
    *,
    sha256_prefix: str,
    size: int | None = None,
    progress: bool = True,
    timeout: float = 30.0,
) -> Path:
    """Return ``destination``, downloaded unless the right file is there already.

    Bytes are collected in ``destination`` + ``.part``. Only a complete file with the right hash is renamed to
    ``destination``, in one step, so whatever stands under that name is whole. A transfer that breaks off
    leaves its ``.part``, and the next call asks the server for the rest; a ``.part`` with a wrong hash is
    removed.

    Parameters
    ----------
    url : str
        ``http`` or ``https``. Redirects are followed, but not from ``https`` to anything else.
    destination : Path
        The file; folders are created as needed. A wrong file of that name is removed.
    sha256_prefix : str
        First hexadecimal digits (8 to 64) of the file's SHA-256; torchvision has eight in its file names.
    size : int, optional
        Length in bytes, where it is known.
    progress : bool
        Show progress on the standard error stream, if that is a terminal: with tqdm where it is installed.
    timeout : float
        Seconds the server may be silent.

    Raises
    ------
    DownloadError
        One line: what failed, with which URL, and what to do.

    Notes
    -----
    Several processes may call this at once: one downloads, the others wait for it and find the file. Windows
    has no such lock; there one of them may fail, but nothing wrong is installed.
    """
    destination = Path(destination)
    if not re.fullmatch("[0-9a-f]{8,64}", sha256_prefix):
        raise ValueError(f"sha256_prefix must be 8 to 64 hexadecimal digits in lower case, got {sha256_prefix!r}")
    transfer = _Transfer(url, destination, sha256_prefix, size, progress, timeout)
    if not re.match("https?://", url, re.IGNORECASE):
        raise transfer.error("only http and https are possible", "Use another address")
    try:
        if transfer.is_right(destination):
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(transfer.part) as part:
            if not transfer.is_right(destination):  # else another process was faster
                destination.unlink(missing_ok=True)
                transfer.run(part)
    except DownloadError:
        raise
    except OSError as error:  # whatever the network raises is a DownloadError already: this is the disk
        problem = f"cannot write {error.filename or transfer.part}: {_reason(error)}"
        raise transfer.error(problem, "Check permissions and free space and try again") from None
    return destination


class _Transfer:
    """One file to be fetched; see :func:`download` for the parameters."""

    def __init__(
        self,
        url: str,
        destination: Path,
        sha256_prefix: str,
        size: int | None,
        progress: bool,
        timeout: float,
    ) -> None:
        self.url, self.destination, self.timeout, self.progress = url, destination, timeout, progress
        self.sha256_prefix, self.size = sha256_prefix, size
        self.part = destination.with_name(destination.name + ".part")

    def error(self, problem: str, remedy: str = "Try again later") -> DownloadError:
        by_hand = f"or download the file by hand and save it as {self.destination}"
        return DownloadError(f"{self.url}: {problem}. {remedy}, {by_hand}")

    def is_right(self, path: Path) -> bool:
        """Tell whether the file exists, with the expected size and hash."""
        if not path.is_file() or self.size not in (None, path.stat().st_size):
            return False
        return _sha256(path).startswith(self.sha256_prefix)

    def run(self, part: BinaryIO) -> None:
        """Bring ``part`` (open, locked) to its end and give it its name."""
        if not self.is_right(self.part):  # it is, where a process was stopped just before the renaming
            resumed = self.fetch(part)
            if resumed and not self.is_right(self.part):  # its beginning was that of another version
                part.truncate(0)
                self.fetch(part)
        os.fsync(part.fileno())
        if not self.is_right(self.part):
            digest = _sha256(self.part)[: len(self.sha256_prefix)]
            found = f"{self.part.stat().st_size} bytes with sha256 {digest}, expected {self.sha256_prefix}"
            if fcntl is None:
                part.close()  # Windows neither removes nor renames an open file
            self.part.unlink()
            raise self.error(f"what arrived is not the expected file and has been removed ({found})")
        if fcntl is None:
            part.close()
        self.part.replace(self.destination)

    def fetch(self, part: BinaryIO) -> bool:
        """Append what is missing to ``part``; return whether the server did continue it."""
        start = part.seek(0, os.SEEK_END)
        try:
            response = self.open(start)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or start == 0:
                raise self.error(f"the server answers {error.code} {error.reason}") from None
            part.truncate(0)
            return self.fetch(part)
        with response:
            headers = response.headers
            if response.status == http.HTTPStatus.PARTIAL_CONTENT:
                begins, total = _content_range(headers)
            else:
                begins, total = 0, _number(headers.get("Content-Length"))
            if begins not in (0, start):
                raise self.error(f"the server was asked for the bytes from {start} on and sent others")
            if self.size is not None and total not in (None, self.size):
                raise self.error(f"the server offers {total} bytes, not the expected {self.size}")
            part.truncate(begins)
            part.seek(begins)
            self.receive(response, part, begins, total or self.size)
        return begins > 0

    def open(self, start: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"npmobilenet/{__version__}"}
        if start > 0:
            headers["Range"] = f"bytes={start}-"
        try:
            request = urllib.request.Request(self.url, headers=headers)
            return urllib.request.build_opener(_Redirects).open(request, timeout=self.timeout)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.error(
                f"no connection ({_reason(error)})", "Check the address and the network and try again"
            ) from None

    def receive(self, response: http.client.HTTPResponse, part: BinaryIO, begins: int, total: int | None) -> None:
        received = begins
        problem = None
        with _progress(self.destination.name, begins, total, self.progress) as show:
            while problem is None:
                try:
                    block = response.read(BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    problem, block = _reason(error), b""
                if not block:
                    break
                try:
                    part.write(block)
                    part.flush()
                except OSError:  # most likely a full disk: it must not stay full
                    self.part.unlink()
                    raise
                received += len(block)
                show(len(block))
                if total is not None and received > total:
                    break  # not the file: the hash will say so
        if problem is not None or (total is not None and received < total):
            amount = f"{received} of {total} bytes" if total is not None else f"{received} bytes"
            cause = f" ({problem})" if problem else ""
            raise self.error(
                f"the transfer broke off after {amount}{cause}, kept in {self.part}",
                "Run the same command again to resume",
            )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only, and never back from https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urllib.parse.urlsplit(newurl).scheme not in allowed:
            raise urllib.error.HTTPError(newurl, code, f"redirected to {newurl}, refused", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for reading and writing, created if it is missing, as the only process.

    An empty file is removed again when the block is left.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        with file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks: as on Windows
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_at(file, path):
                    continue  # while this process waited, another renamed or removed that file
            try:
                yield file
            finally:
                if not file.closed and _is_at(file, path) and file.seek(0, os.SEEK_END) == 0:
                    path.unlink()
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _content_range(headers: Message) -> tuple[int, int | None]:
    """Return where ``Content-Range: bytes BEGIN-END/TOTAL`` begins (-1: unreadable) and the total."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    return (int(match[1]), _number(match[2])) if match else (-1, None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _reason(error: Exception) -> str:
    """Return the error's text on one line, without urllib's wrapping."""
    cause = getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split())


@contextmanager
def _progress(name: str, begins: int, total: int | None, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes of each block."""
    if not wanted or sys.stderr is None or not sys.stderr.isatty():
        yield lambda count: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        with _percentage(name, begins, total) as show:
            yield show
    else:
        with tqdm(desc=name, initial=begins, total=total, unit="B", unit_scale=True, unit_divisor=1024) as bar:
            yield bar.update


@contextmanager
def _percentage(name: str, begins: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Write one line that counts in steps of 10 % (of a megabyte where the total is unknown)."""
    received, written = begins, None

    def show(count: int) -> None:
        nonlocal received, written
        received += count
        text = f"{received * 10 // total * 10} %" if total else f"{received >> 20} MB"
        if text != written:
            written = text
            print(f"\r{name}: {text}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print(file=sys.stderr)
