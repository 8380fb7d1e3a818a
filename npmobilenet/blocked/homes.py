"""In whose memory tensors stand: most in their own; what is computed in place, or concatenated, in another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from npmobilenet.graph import Node
from npmobilenet.kernels import blocked
from npmobilenet.kernels.tensor import Tensor


@dataclass(frozen=True)
class Homes:
    """Where the tensors of a plan stand.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        By the node that computes each.
    readers : mapping of str to sequence of Node
    outputs : sequence of str
        The nodes whose tensors are needed at the end.
    """

    tensors: Mapping[str, Tensor]
    readers: Mapping[str, Sequence[Node]]
    outputs: Sequence[str]
    _inside: dict[str, tuple[str, int]] = field(default_factory=dict)
    _parts: dict[str, list[str]] = field(default_factory=dict)  # of concatenations: the inputs that stand in them

    def of(self, name: str) -> tuple[str, int]:
        """Return in whose memory a tensor stands, and how many values after its beginning."""
        within = 0
        while name in self._inside:
            name, offset = self._inside[name]
            within += offset
        return name, within

    def in_place(self, name: str, inputs: Sequence[str]) -> None:
        """Compute a tensor in the memory of the first of these that is like it and not needed any more."""
        for source in inputs:
            if self.tensors[source] == self.tensors[name] and self._alone(source):
                self._inside[name] = source, 0
                return

    def _alone(self, name: str) -> bool:
        """Whether nothing that stands there, a part of it either, is needed once its only reader is done."""
        if len(self.readers[name]) > 1 or name in self.outputs:
            return False
        return all(map(self._alone, self._parts.get(name, ())))

    def concatenated(self, name: str, inputs: Sequence[str]) -> None:
        """Let those inputs stand in the result that begin where a block does, and have its frame: they are not copied.

        One that is a part of another concatenation, or of this one, already is copied.
        """
        whole = self.tensors[name]
        widths = [self.tensors[x].channels for x in inputs]
        if whole.room > 1 or not blocked.channels.aligned(widths, whole.lanes):
            return
        for x, start in zip(inputs, blocked.channels.starts(widths), strict=True):
            owner, _ = self.of(x)
            if owner != name and self.tensors[owner] == self.tensors[x] and self.tensors[x].frame == whole.frame:
                self._inside[owner] = name, blocked.channels.part(whole, 1, start).address // whole.dtype.itemsize
                self._parts.setdefault(name, []).append(x)
