"""The machine code of a pack."""

from __future__ import annotations

from npmobilenet.errors import NpmobilenetError
from npmobilenet.kernels.sharing import once
from npmobilenet.kernels.vector import shipped
from npmobilenet.kernels.vector.functions import Functions
from npmobilenet.kernels.vector.target import Target


@once
def library(name: str, target: Target) -> Functions:
    """Open a library.

    Raises
    ------
    NpmobilenetError
        If it is not there, or not as it was packed.
    """
    found, why = shipped.find(name, target)
    if found is None:
        raise NpmobilenetError(f"the machine code of this pack cannot be used: {name}: {why}")
    return found
