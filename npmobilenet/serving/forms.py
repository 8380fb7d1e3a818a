"""The photograph in what a request brings: its body as it is, or a part of a form (RFC 7578)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from npmobilenet.text import printable

LONGEST_HEADERS = 1 << 13  # bytes, of a part
MOST_PARTS = 32
BOUNDARY = re.compile(r"""boundary\s*=\s*(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))""", re.IGNORECASE)
PARAMETER = re.compile(r""";\s*(name|filename)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))""", re.IGNORECASE)
NAMES = ("image", "file", "photo")  # of fields that may hold a photograph though they give no file's name


class FormError(ValueError):
    """The body is no form with one photograph."""


class Upload(NamedTuple):
    """A photograph's bytes, and what its sender calls it."""

    content: bytes
    name: str | None = None


def upload(content_type: str, body: bytes) -> Upload:
    """Return the photograph that a request brings.

    Only a form is looked into; whatever else the body is said to be, its bytes tell.

    Raises
    ------
    FormError
        If it is none, or several.
    """
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        found = Upload(body)
    else:
        boundary = BOUNDARY.search(content_type)
        if not boundary:
            raise FormError("a form without a boundary: expected multipart/form-data; boundary=...")
        files = list(_files(body, (boundary[1] or boundary[2]).encode("latin-1", "replace")))
        if len(files) != 1:
            raise FormError(f"{len(files)} files in the form: expected one photograph")
        found = files[0]
    if not found.content:
        raise FormError("the request has no content: expected a photograph")
    return found


def _files(body: bytes, boundary: bytes) -> Iterator[Upload]:
    delimiter = b"\r\n--" + boundary
    at = 0 if body.startswith(delimiter[2:]) else body.find(delimiter) + 2
    if at == 1:
        raise FormError("the form's boundary is not in it")
    at += len(delimiter) - 2
    for _ in range(MOST_PARTS):
        if body.startswith(b"--", at):
            return
        begin = body.find(b"\r\n\r\n", at, at + LONGEST_HEADERS)
        if begin < 0:
            raise FormError(f"the headers of a part of the form have no end, or more than {LONGEST_HEADERS} bytes")
        end = body.find(delimiter, begin + 2)
        if end < 0:
            raise FormError("the form is cut short: its last boundary is missing")
        name = _file_name(body[at:begin].decode("utf-8", "replace"))
        if name is not None:
            yield Upload(body[begin + 4 : end], name)
        at = end + len(delimiter)
    raise FormError(f"the form has more than {MOST_PARTS} parts")


def _file_name(headers: str) -> str | None:
    """What a file is called, without folders and fit to be shown; None if this part is no file."""
    for line in headers.split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            told = {key.lower(): quoted or plain for key, quoted, plain in PARAMETER.findall(value)}
            if "filename" in told or told.get("name") in NAMES:
                return printable(re.split(r"[/\\]", told.get("filename", ""))[-1], 200)
    return None
