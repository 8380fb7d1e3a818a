"""Where the machine code of kernels is kept."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from npmobilenet.paths import cache_directory


@lru_cache(maxsize=1)
def kernel_cache() -> Path | None:
    """Return the folder of compiled kernels, or None where no folder can be written.

    Its name holds a hash of every kernel source: Numba itself looks only at the file that defines a function,
    and would go on using machine code into which an older version of another file was inlined.
    """
    sources = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(file.name.encode() + b"\0" + file.read_bytes())
    numba_folder = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(numba_folder) / "npmobilenet" if numba_folder else cache_directory()
    folder = base / f"kernels-{sources.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    except OSError:
        return None
