"""What all topics have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from npmobilenet.machine import numba_is_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npmobilenet.model import Model

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Table:
    """Lines of text cells: the first ``texts`` columns are words, the others numbers; notes are sentences below."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    notes: Sequence[str] = ()


class Study(Protocol):
    """What a topic found."""

    def tables(self) -> list[Table]:
        """Return the numbers, to be read."""

    def numbers(self) -> dict[str, Any]:
        """Return the numbers as JSON knows them."""

    def draw(self, figure: Figure) -> None:
        """Draw the picture on an empty figure, whose size may be changed."""


def load_network(source: str) -> Model:
    """Load weights for a study: on the fastest kernels, or on NumPy where Numba is switched off."""
    from npmobilenet.loading import load

    return load(source, backend="auto" if numba_is_on() else "reference")


def milliseconds(seconds: float | None) -> str:
    """A time of a table, if there is one."""
    return "-" if seconds is None else f"{1e3 * seconds:.3g}" if seconds < 1e-4 else f"{1e3 * seconds:.2f}"


def ratio(value: float | None, digits: int = 2) -> str:
    """A quotient of a table, if there is one."""
    return "-" if value is None else f"{value:.{digits}f}"


def measurement_notes(warning: str | None, measured: bool) -> list[str]:
    """What is to be said of a table's times: that there are none, or that they are noisy."""
    if not measured:
        return [f"times: {NOT_MEASURED} (Numba is switched off, or the vector kernels cannot run this)"]
    return [f"warning: {warning}"] if warning else []
