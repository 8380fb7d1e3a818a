"""Inert placeholders for Python objects that a pickle names and that have no meaning here.

A training checkpoint holds whatever its author had at hand: configurations, callbacks, histories, enumerations.
Nothing of them is imported or run. A name becomes a `Foreign`, whatever is made with it a `ForeignObject`, which
keeps what it was given, because weights may lie in it: a whole pickled model is an object with attributes.
"""

from __future__ import annotations


class Foreign:
    """Stands for the class or function ``name`` ("module.name")."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class ForeignObject:
    """Stands for what calling the class or function ``kind`` would have returned.

    Attributes
    ----------
    kind : str
    entries : dict
        What it was filled with as a dict, the dict that it was made of, or its attributes: the first of these that
        there is.
    attributes : dict
    """

    __slots__ = ("_arguments", "_items", "attributes", "kind")

    def __init__(self, kind: str, arguments: tuple = ()) -> None:
        self.kind = kind
        self.attributes: dict[str, object] = {}
        self._arguments = arguments
        self._items: dict[str, object] = {}

    @property
    def entries(self) -> dict[str, object]:
        """Its content as a dict."""
        if self._items:
            return self._items
        if len(self._arguments) == 1 and type(self._arguments[0]) is dict and self._arguments[0]:
            return self._arguments[0]
        return self.attributes

    def update(self, items: dict[str, object]) -> None:
        """Take items as a dict does."""
        self._items.update(items)

    def build(self, state: object) -> None:
        """Take attributes: a dict, or a dict and another one for slots."""
        for part in state if type(state) is tuple and len(state) == 2 else (state,):
            if type(part) is dict and part:
                self.attributes = part
                break
