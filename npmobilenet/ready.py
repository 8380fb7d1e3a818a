"""Networks that are ready at once: their plans come with the package (`recorded.shipped`).

Nothing looks at their layers, until somebody asks for what only layers tell, or for another size of images: then the
network is loaded as every other, and computes the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from npmobilenet.errors import NpmobilenetError
from npmobilenet.kernels.sharing import MAKING
from npmobilenet.model import Model
from npmobilenet.recorded.program import RecordedPlan, RecordedProgram
from npmobilenet.recorded_model import RecordedModel

if TYPE_CHECKING:
    from npmobilenet.blocked.plan import BlockedPlan
    from npmobilenet.graph import Graph
    from npmobilenet.kernels.geometry import Pair
    from npmobilenet.recorded.shipped import Found


class ReadyProgram(RecordedProgram):
    """A network with recorded plans; other plans are made by the whole one, which is loaded when there is a need.

    Parameters
    ----------
    found : Found
    load : callable
        Loads the whole network, as every other is loaded.

    Attributes
    ----------
    whole : Model
    """

    def __init__(self, found: Found, load: Callable[[], Model]) -> None:
        super().__init__(found.network, found.arrays, found.level)
        self._load, self._whole = load, None
        found.folding.wait()  # before anybody can ask for a plan, or fork

    @property
    def whole(self) -> Model:
        with MAKING:  # whoever forks waits: what is half imported would remain so
            if self._whole is None:
                self._whole = self._load()
            return self._whole

    @property
    def graph(self) -> Graph:
        return self.whole._engine.program.graph

    def plan(
        self, size: Pair, output: str | tuple[str, ...] | None = None, threads: int = 1
    ) -> RecordedPlan | BlockedPlan:
        """Return the plan for images of ``(H, W)``: recorded, if it is, and if its machine code is shipped."""
        names = (output,) if isinstance(output, str) else output or (self.network.main_output,)
        if size == self.network.size and any(names == outputs for outputs, _ in self.recordings):
            with suppress(NpmobilenetError):
                return super().plan(size, output, threads)
        return self.whole._engine.program.plan(size, output, threads)


class ReadyModel(RecordedModel):
    """A model that is ready at once. What it lacks makes it a `Model` of the ordinary kind."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_engine" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._complete()
        return getattr(self, name)

    def __reduce_ex__(self, protocol: int) -> tuple:
        self._complete()
        return self.__reduce_ex__(protocol)

    def _complete(self) -> None:
        program = self._engine.program
        if isinstance(program, ReadyProgram):  # else another thread has done it
            whole = program.whole
            self.__dict__ = {**whole.__dict__, **self.__dict__, "_engine": whole._engine}
            self.__class__ = Model
