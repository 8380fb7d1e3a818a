"""Names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from npmobilenet.weights import CATALOGUE


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k, in the order of a classifier's outputs (from torchvision)."""
    return tuple(CATALOGUE["mobilenet_v2"].info().classes)


def class_names(num_classes: int, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return one name per class.

    Where ``names`` is None: ImageNet's for 1000 classes, the same after "background" for 1001 (TensorFlow's
    checkpoints), else "class 0", "class 1", ...

    Raises
    ------
    ValueError
        If the number of names is not the number of classes.
    """
    if names is not None:
        names = tuple(str(name) for name in names)
        if len(names) != num_classes:
            raise ValueError(f"the network has {num_classes} classes, but {len(names)} class names were given")
        return names
    if num_classes == 1000:
        return imagenet_classes()
    if num_classes == 1001:
        return ("background", *imagenet_classes())
    return tuple(f"class {index}" for index in range(num_classes))
