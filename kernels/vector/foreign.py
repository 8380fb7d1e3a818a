"""Libraries for other machines: what calls of theirs look like can be told here, and nothing of it be run."""

from __future__ import annotations

import os
import sys
from itertools import count

from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.target import Target

_addresses = count(1 << 62)  # where no memory is


def is_foreign(target: Target) -> bool:
    """Whether code for a target can never run on this kind of machine."""
    machine = target.triple.partition("-")[0]
    return target.level is not None and (
        sys.platform != "linux" or sys.maxsize < 1 << 32 or os.uname().machine != machine
    )


class Foreign(Functions):
    """Functions of another kind of machine: numbers that stand for their addresses, whatever they are called."""

    def __init__(self, name: str) -> None:
        self.name, self.origin = name, "of another machine"
        self._numbers: dict[str, int] = {}

    def address(self, name: str) -> int:
        return self._numbers.setdefault(name, next(_addresses))
