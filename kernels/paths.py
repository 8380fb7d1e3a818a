"""Where this user's compiled kernels and downloaded weights live."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

SETTING = "NPMOBILENET_CACHE_DIR"
REMEDY = f"set {SETTING} to a folder that can be written"


class NoFolderError(OSError):
    """There is no folder to keep files in."""


def cache_directory() -> Path:
    """Return the per-user cache folder (not created here), an absolute path.

    ``NPMOBILENET_CACHE_DIR`` if set, else the platform's usual place: ``$XDG_CACHE_HOME`` or ``~/.cache``,
    ``~/Library/Caches`` on macOS, ``%LOCALAPPDATA%`` on Windows.

    Raises
    ------
    NoFolderError
        If the system knows no home folder: of this user, as for a user id without an entry in a container, or of
        the one that the setting names.
    """
    chosen = os.environ.get(SETTING)
    if chosen:
        return expanded(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not Path(base).is_absolute():  # which is to be ignored, says the XDG specification
            base = "~/.cache"
    return expanded(base) / "npmobilenet"


def expanded(path: str) -> Path:
    """Return an absolute path, without ``~``.

    Raises
    ------
    NoFolderError
        If that is not known.
    """
    try:
        return Path(path).expanduser().absolute()
    except OSError:
        raise NoFolderError(f"{path}: the current folder, in which it should be, is no more; {REMEDY}") from None
    except RuntimeError:
        whose = Path(path).parts[0][1:]
        user = f"the user {whose!r}" if whose else "this user"
        raise NoFolderError(f"no home folder is known for {user}; {REMEDY}") from None


def temporary_directory() -> Path | None:
    """Return a folder of this user's own among the system's temporary files, the same in every process.

    Its name cannot be foreseen, and it is found again by its owner: machine code is loaded from it, so that nobody
    else may ever have written to it. None if there can be no such folder: the place for temporary files lets others
    put their folder in the place of ours, or nothing can be written there, or this is Windows.
    """
    if not hasattr(os, "getuid"):
        return None
    import tempfile  # here, for few need it

    user = os.getuid()
    prefix = f"npmobilenet-{user}-"
    try:
        place = Path(tempfile.gettempdir())
        status = place.stat()
        others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if others_write or status.st_uid not in (0, user):
            return None
        with os.scandir(place) as entries:
            ours = sorted(entry.path for entry in entries if entry.name.startswith(prefix) and _private(entry, user))
        return Path(ours[0] if ours else tempfile.mkdtemp(prefix=prefix))
    except OSError:
        return None


def _private(entry: os.DirEntry, user: int) -> bool:
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user and stat.S_IMODE(status.st_mode) == stat.S_IRWXU
