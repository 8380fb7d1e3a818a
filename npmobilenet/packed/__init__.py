"""Networks that were packed (`npmobilenet.packing`): lowered before, for certain CPUs and one size of images.

Its modules go into the folder of a pack, beside the few of the engine that run what was prepared.

``recording``  how a plan is written down: its calls as numbers, and which of these are addresses
``program``    plans as they were recorded, weights in the file in which they lie
``layers``     what plans are made of, where images differ in size; ``libraries``: machine code
``model``      :func:`load`: a packed network with the methods of a :class:`~npmobilenet.model.Model`
"""

from typing import TYPE_CHECKING

from npmobilenet import lazily

if TYPE_CHECKING:
    from npmobilenet.packed.model import PackedModel, load

__all__ = ["PackedModel", "load"]

__getattr__ = lazily(__name__, PackedModel="model", load="model")
