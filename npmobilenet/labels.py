"""Names of classes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from npmobilenet.class_lists import COCO, COCO_BY_NUMBER
from npmobilenet.text import quote

NEAREST_NAMES = 3  # shown for one that no class has


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k, in the order of a classifier's outputs (from torchvision)."""
    from npmobilenet.weights import CATALOGUE  # here, for most weights come with their names

    return tuple(CATALOGUE["mobilenet_v2"].info().classes)


@lru_cache(maxsize=1)
def imagenet_synsets() -> tuple[str, ...]:
    """The WordNet 3.0 synsets of these classes, such as ``n01440764``: ImageNet's own names of its folders."""
    from importlib.resources import files  # few ask

    from npmobilenet import weights

    return tuple(files(weights).joinpath("imagenet_synsets.txt").read_text(encoding="ascii").split())


def class_names(num_classes: int, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return one name per class.

    Where ``names`` is None: ImageNet's for 1000 classes, the same after "background" for 1001 (TensorFlow's
    checkpoints), else "class 0", "class 1", ...

    Raises
    ------
    ValueError
        If the number of names is not the number of classes.
    """
    if isinstance(names, str) or not isinstance(names, (Iterable, type(None))):
        raise ValueError(f"names of classes must be a list of texts, got {names!r}")
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


def detector_classes(outputs: int) -> tuple[str, ...] | None:
    """Return the names of a detector's classes where their number tells them: COCO's; else None."""
    return {
        80: COCO,
        81: ("background", *COCO),
        90: COCO_BY_NUMBER[1:],
        91: COCO_BY_NUMBER,
    }.get(outputs)


class Labels:
    """Which class of a network a label means, however it is written.

    A label is a class's name (capitals, underscores and hyphens count for nothing, unless they alone tell two classes
    apart), for ImageNet's classes its synset, or its number: ``123`` or ``class 123``.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._indices: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self.classes):
            self._exact[name].append(index)
            self._indices[_plain(name)].append(index)
        if self.classes[-1000:] == imagenet_classes():
            for index, synset in enumerate(imagenet_synsets(), len(self.classes) - 1000):
                self._indices[synset].append(index)

    def index(self, label: str) -> int:
        """Return the index of the class that is meant.

        Raises
        ------
        ValueError
            If there is none, or several have this name.
        """
        indices = self.meant(label)
        if len(indices) != 1:
            raise ValueError(self.problem(label))
        return indices[0]

    def meant(self, label: str) -> Sequence[int]:
        """Return the indices of all classes that may be meant."""
        plain = _plain(label)
        known = (self._exact.get(label), self._indices.get(plain), self._indices.get(plain.partition(",")[0]))
        indices = min(filter(None, known), key=len, default=())  # "Cardigan" is a dog, "cardigan" is knitted
        if indices:
            return indices
        number = _number(label)
        return () if number is None or number >= len(self.classes) else (number,)

    def problem(self, label: str) -> str:
        """Say why a label is not that of one class."""
        if indices := self.meant(label):
            return f"{quote(label)} names the classes {', '.join(map(str, indices))}: give the number"
        nearest = self._nearest(_plain(label)) if _number(label) is None else ""
        return f"{quote(label)} ({nearest or f'there are {len(self.classes)} classes'})"

    def _nearest(self, plain: str) -> str:
        from difflib import get_close_matches  # of errors alone

        near = get_close_matches(plain[:200], self._indices, NEAREST_NAMES)
        return f"nearest: {', '.join(quote(self.classes[self._indices[name][0]]) for name in near)}" if near else ""

    def shown(self, index: int) -> str:
        """The name of a class, with its number if another has the same."""
        name = self.classes[index]
        return f"{name} ({index})" if len(self._indices[_plain(name)]) > 1 else name


def _plain(name: str) -> str:
    return " ".join(re.sub(r"(?<=\w)[_-]+(?=\w)|_", " ", name).casefold().split())  # the hyphen of -1 is none


def _number(label: str) -> int | None:
    """The number that a label is, whether there is such a class or not."""
    number = re.fullmatch(r"(?:class[ _-]?)?0*([0-9]{1,9})", label.strip().casefold())
    return int(number[1]) if number else None
