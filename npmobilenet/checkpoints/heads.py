"""Which linear layers of a checkpoint end the network, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote


class Head(NamedTuple):
    """The modules of the linear layers after the pooling; None where there is none.

    Attributes
    ----------
    hidden, classifier : str or None
    outputs : int
        Of the classifier; 0 without one.
    """

    hidden: str | None
    classifier: str | None
    outputs: int = 0


class Linear(NamedTuple):
    """A linear layer in a file."""

    module: str
    inputs: int
    outputs: int


class HeadFinder:
    """The linear layers that a file has beside a network's convolutions.

    Parameters
    ----------
    tensors : mapping of str to array
    modules : sequence of str
        Those that are not part of the network before its pooling.
    prefix : str
        Of the network. A head may lie outside of it, but one inside comes first.
    features : int
        Channels after the pooling.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], modules: Sequence[str], prefix: str, features: int) -> None:
        self.modules, self.prefix, self.features = set(modules), prefix, features
        linears = [linear for module in modules if (linear := _linear(tensors, module))]
        inside = [linear for linear in linears if linear.module.startswith(prefix)]
        self.linears = {linear.module: linear for linear in linears}
        # A convolution beside the network is rather part of a detector than a classifier.
        self.nearest = inside or [linear for linear in linears if tensors[f"{linear.module}.weight"].ndim == 2]

    def find(self, classifier: str, hidden: str | None = None, hidden_channels: int = 0) -> Head:
        """Return the head of a network whose publisher calls its linear layers so.

        With a hidden layer its activation is known, so that two layers are read wherever their widths are the
        network's; without, a second layer is an error.

        Raises
        ------
        CheckpointError
            If several layers may be the classifier, or one follows another and nothing tells what is between them.
        """
        head = self._with_hidden(classifier, hidden, hidden_channels) if hidden else self._single(classifier)
        last = self.linears.get(head.classifier or "")
        after = [each for each in self.nearest if last and each.inputs == last.outputs and each != last]
        if after:
            raise CheckpointError(
                f"two linear layers follow the pooling, {quote(last.module)} ({last.inputs} to {last.outputs}) and "
                f"{quote(after[0].module)} ({after[0].inputs} to {after[0].outputs}), and a file does not tell which "
                "activation is between them; num_classes=0 loads the network without them"
            )
        return head

    def _single(self, classifier: str) -> Head:
        declared = self._declared(classifier)
        if declared:
            return self._head(None, declared)
        fitting = [linear for linear in self.nearest if linear.inputs == self.features]
        if len(fitting) > 1:
            names = " and ".join(quote(linear.module) for linear in fitting[:4])
            raise CheckpointError(
                f"several linear layers of {self.features} inputs follow the pooling ({names}), and a file does not "
                "tell which is the classifier; num_classes=0 loads the network without them"
            )
        if not fitting and len(self.nearest) == 1 and self.nearest[0].module.startswith(self.prefix):
            fitting = self.nearest  # of the wrong width, as the list of what does not fit will say
        return self._head(None, fitting[0].module if fitting else None)

    def _with_hidden(self, classifier: str, hidden: str, channels: int) -> Head:
        first, last = self._declared(hidden), self._declared(classifier)
        before = [each for each in self.nearest if (each.inputs, each.outputs) == (self.features, channels)]
        after = [each for each in self.nearest if each.inputs == channels and each.module != first]
        if not first and last and self._inputs(last) == channels and len(before) == 1:
            first = before[0].module
        if not first and not last and len(before) == len(after) == 1:
            first, last = before[0].module, after[0].module
        if first and not last and len(after) == 1:
            last = after[0].module
        if first and not last and self._outputs(first) not in (0, channels):
            first, last = None, first  # a single layer, where the hidden one was
        if not first and not (last and self._inputs(last) != self.features):
            return self._single(classifier)
        return self._head(first or f"{self.prefix}{hidden}", last)

    def _head(self, hidden: str | None, classifier: str | None) -> Head:
        return Head(hidden, classifier, self._outputs(classifier) if classifier else 0)

    def _inputs(self, module: str) -> int:
        return self.linears[module].inputs if module in self.linears else 0

    def _outputs(self, module: str) -> int:
        return self.linears[module].outputs if module in self.linears else 0

    def _declared(self, name: str) -> str | None:
        """The module of the publisher's name: under the network's prefix, or beside what the prefix leads into."""
        for outer in _outwards(self.prefix):
            if outer + name in self.modules:
                return outer + name
        return None


def _outwards(prefix: str) -> Iterator[str]:
    """``"a.b."``, ``"a."``, ``""``."""
    yield prefix
    while prefix:
        outer, _, _ = prefix[:-1].rpartition(".")
        prefix = outer and f"{outer}."
        yield prefix


def _linear(tensors: Mapping[str, np.ndarray], module: str) -> Linear | None:
    """The layer of a matrix, or of a 1x1 convolution's kernel."""
    shape = tensors[f"{module}.weight"].shape if f"{module}.weight" in tensors else ()
    if len(shape) < 2 or shape[2:] not in ((), (1, 1)) or not shape[0]:
        return None
    return Linear(module, shape[1], shape[0])
