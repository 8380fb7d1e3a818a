"""What a source holds: names, and how to get at their bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from npmobilenet.errors import ImageError
from npmobilenet.text import printable

if TYPE_CHECKING:
    from npmobilenet.image import ImageSource

LARGEST_MEMBER = 1 << 28  # bytes of an image in an archive, which has to be kept in memory


class Entry(NamedTuple):
    """One image of a source.

    Attributes
    ----------
    name : str
        What its rows are called: the file's path, or the archive's with the member's behind it.
    content : callable
        Gives what `npmobilenet.image.read_image` takes: a path, or a file object. It raises what is wrong.
    passing : bool
        Whether ``content`` must be called before the next entry is asked for, since it comes out of a stream.
    """

    name: str
    content: Callable[[], ImageSource]
    passing: bool = False

    @staticmethod
    def failed(name: str, problem: str, error: type[Exception] = ImageError) -> Entry:
        """An entry that cannot be read, and why."""

        def fail() -> NoReturn:
            raise error(f"{printable(name)}: {problem}")

        return Entry(name, fail)


class NamedBytes(io.BytesIO):
    """Bytes in memory, as a file that errors call by its name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name

    def __len__(self) -> int:
        return self.getbuffer().nbytes


def too_large(size: int) -> str:
    """Say that a member of an archive is larger than :data:`LARGEST_MEMBER`."""
    return f"{size >> 20} MB, and images in archives may have {LARGEST_MEMBER >> 20} MB: take it out of the archive"


def reason(error: BaseException) -> str:
    """Why the system or a library refused something: without the file's name, on one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
