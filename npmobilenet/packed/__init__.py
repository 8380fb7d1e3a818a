"""Networks that were packed (`npmobilenet.packing`): lowered before, for certain CPUs and one size of images.

In ``model`` is :func:`load`: a packed network with the methods of a :class:`~npmobilenet.model.Model`. It goes into the
folder of a pack, beside the few modules of the engine that run what was recorded (`npmobilenet.recorded`).
"""

from typing import TYPE_CHECKING

from npmobilenet import lazily

if TYPE_CHECKING:
    from npmobilenet.packed.model import PackedModel, load

__all__ = ["PackedModel", "load"]

__getattr__ = lazily(__name__, PackedModel="model", load="model")
