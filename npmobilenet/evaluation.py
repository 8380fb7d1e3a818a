"""How often a network is right, how sure that is, and how two networks compare on the same photographs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

CONFIDENCE = 1.959963984540054  # standard deviations on both sides that hold 95 %


class Share(NamedTuple):
    """A part of a whole.

    Attributes
    ----------
    count, total : int
    low, high : float
        Between these lies, with 95 % confidence, the share among all photographs of this kind (Wilson's interval).
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.count / self.total


def share(count: int, total: int) -> Share:
    """Return a share with its confidence interval (Wilson, 1927), which also holds for few, for none and for all."""
    z2 = CONFIDENCE**2
    p = count / total
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = CONFIDENCE * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    # Of none the lower limit is 0, of all the upper one is 1; rounding must not make it more.
    return Share(count, total, max(0.0, centre - half) if count else 0.0, min(1.0, centre + half) if p < 1 else 1.0)


def mcnemar(first: int, second: int) -> float:
    """Return how probable a difference at least as large is by chance (McNemar's test, exact, two-sided).

    Parameters
    ----------
    first, second : int
        Of how many photographs the first network alone, the second alone is right.
    """
    total, fewer = first + second, min(first, second)
    if not total:
        return 1.0
    constant = math.lgamma(total + 1) - total * math.log(2)
    tail = math.fsum(
        math.exp(constant - math.lgamma(k + 1) - math.lgamma(total - k + 1)) for k in range(fewer + 1)
    )  # P(X <= fewer), X binomial with 1/2
    return min(1.0, 2 * tail)


def rank(logits: np.ndarray, label: int) -> int:
    """Return the place of a class among all: 0 for the most probable; of equal ones the first comes first."""
    value = logits[label]
    return int((logits > value).sum() + (logits[:label] == value).sum())


@dataclass
class Tally:
    """What one network made of labelled photographs, counted as they come.

    Attributes
    ----------
    labels, right : Counter
        How many photographs there were of each class, and how many of them were recognised.
    among_five : int
        How many have their label among the five most probable classes.
    mistakes : Counter
        How often a label was taken for another class: ``{(label, prediction): count}``.
    """

    labels: Counter[int] = field(default_factory=Counter)
    right: Counter[int] = field(default_factory=Counter)
    among_five: int = 0
    mistakes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, logits: np.ndarray, label: int) -> bool:
        """Count a photograph, and return whether the network is right."""
        place = rank(logits, label)
        self.labels[label] += 1
        self.among_five += place < 5
        if place:
            self.mistakes[label, int(logits.argmax())] += 1
        else:
            self.right[label] += 1
        return place == 0

    @property
    def top1(self) -> Share:
        """The share of photographs whose label is the most probable class."""
        return share(self.right.total(), self.labels.total())

    @property
    def top5(self) -> Share:
        """The share whose label is among the five most probable."""
        return share(self.among_five, self.labels.total())


class Difference(NamedTuple):
    """A photograph that two networks take for different classes, each by its own number."""

    name: str
    label: int | None
    first: int
    second: int


@dataclass
class Comparison:
    """Two networks on the same photographs."""

    total: int = 0
    differences: list[Difference] = field(default_factory=list)
    right: Counter[tuple[bool, ...]] = field(default_factory=Counter)
    """Of how many labelled photographs (first, second) are right."""

    @property
    def agreement(self) -> Share:
        """The share of photographs that both take for the same class."""
        return share(self.total - len(self.differences), self.total)

    @property
    def chance(self) -> float:
        """How probable so large a difference is between networks that are equally good: see :func:`mcnemar`."""
        return mcnemar(self.right[True, False], self.right[False, True])


class Evaluation:
    """One network on photographs, or two that are compared.

    Parameters
    ----------
    *classes : sequence of str
        The class names of each network. A label is an index of the first's; the second's classes are known by name.

    Attributes
    ----------
    tallies : list of Tally
        Of each network.
    comparison : Comparison or None
        Of two.

    Raises
    ------
    ValueError
        If the networks have no class in common.
    """

    def __init__(self, *classes: Sequence[str]) -> None:
        self.tallies = [Tally() for _ in classes]
        self.comparison = Comparison() if len(classes) == 2 else None
        self._same = same_classes(classes[0], classes[-1])
        self._targets = [{label: label for label in range(len(classes[0]))}]
        if self.comparison:
            self._targets.append({first: second for second, first in self._same.items()})
        if not self._same:
            raise ValueError("the two networks have no class in common")

    def knows(self, label: int) -> bool:
        """Whether all networks have this class."""
        return all(label in targets for targets in self._targets)

    def add(self, name: str, label: int | None, logits: Sequence[np.ndarray]) -> None:
        """Count a photograph, with the logits of each network."""
        right: tuple[bool, ...] = ()
        if label is not None:
            triples = zip(self.tallies, logits, self._targets, strict=True)
            right = tuple(tally.add(row, targets[label]) for tally, row, targets in triples)
        if self.comparison:
            first, second = (int(row.argmax()) for row in logits)
            self.comparison.total += 1
            self.comparison.right[right] += 1
            if self._same.get(second) != first:
                self.comparison.differences.append(Difference(name, label, first, second))


def same_classes(first: Sequence[str], second: Sequence[str]) -> dict[int, int]:
    """Return which class of the second network is which of the first, by their names: ``{second: first}``.

    Of names that occur several times the first is the first, and so on.
    """
    known = {key: index for index, key in enumerate(_numbered(first))}
    return {index: known[key] for index, key in enumerate(_numbered(second)) if key in known}


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    seen: Counter[str] = Counter()
    keys = []
    for name in (name.casefold() for name in names):
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys
