"""Which part of a photograph its label rests on (Zeiler and Fergus, 1311.2901, section 4.2).

A grey patch slides over the photograph; where the label's probability falls, the network looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npmobilenet.bench.study.features import visible
from npmobilenet.bench.study.study import Table, load_network
from npmobilenet.image import read_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npmobilenet.model import Model

BATCH = 32
LISTED = 5  # patches in the table
GAINS = 0.2  # part of the largest loss: if covering some place gains as much, the picture shows gains, too
GREY = 0.0  # the mean colour, in a normalised image


@dataclass(frozen=True)
class Place:
    """What becomes of the label with the patch at one place: its upper left corner in the network's input."""

    row: int
    column: int
    probability: float
    becomes: str


@dataclass(frozen=True)
class Occlusion:
    """All places of the patch, in rows from the top."""

    photo: str
    network: str
    label: str
    probability: float
    patch: int
    size: tuple[int, int]
    places: list[Place]
    picture: np.ndarray

    @property
    def heat(self) -> np.ndarray:
        """How much probability each pixel takes away: the mean over the patches that cover it, (H, W)."""
        total, covered = np.zeros(self.size), np.zeros(self.size)
        for place in self.places:
            window = np.s_[place.row : place.row + self.patch, place.column : place.column + self.patch]
            total[window] += self.probability - place.probability
            covered[window] += 1
        return total / np.maximum(covered, 1)

    @property
    def worst(self) -> list[Place]:
        """Places by what is left of the label's probability, least first."""
        return sorted(self.places, key=lambda place: place.probability)

    def numbers(self) -> dict[str, Any]:
        """Return what JSON holds."""
        about = {"photo": self.photo, "network": self.network, "label": self.label, "probability": self.probability}
        places = [vars(place) for place in self.places]
        return {**about, "patch": self.patch, "input": list(self.size), "places": places}

    def tables(self) -> list[Table]:
        """Return the places that matter most."""
        lost = sum(place.becomes != self.label for place in self.places)
        return [
            Table(
                f"{Path(self.photo).name}: {self.label}, {self.probability:.2%} ({self.network}); "
                f"where a grey patch of {self.patch}x{self.patch} pixels takes most of it away",
                ("rows", "columns", "left of it", "label then"),
                [
                    (
                        f"{place.row}-{place.row + self.patch}",
                        f"{place.column}-{place.column + self.patch}",
                        f"{place.probability:.2%}",
                        place.becomes,
                    )
                    for place in self.worst[:LISTED]
                ],
                texts=2,
                notes=(
                    f"pixels of the network's input, {self.size[0]}x{self.size[1]}; {len(self.places)} places, at "
                    f"{lost} of which {self.label} is not the most probable",
                ),
            )
        ]

    def draw(self, figure: Figure) -> None:
        """The photograph with the worst place; the heat map over the photograph."""
        from matplotlib.patches import Rectangle

        from npmobilenet.bench.study.pictures import BLACK, DIVERGING, as_photograph

        left, right = figure.subplots(1, 2)
        worst = self.worst[0]
        left.imshow(self.picture)
        for colour, width in ((BLACK, 4), ("white", 2)):
            corner = (worst.column - 0.5, worst.row - 0.5)
            left.add_patch(Rectangle(corner, self.patch, self.patch, fill=False, edgecolor=colour, linewidth=width))
        left.set_title(
            f"{self.label}: {_per_cent(self.probability)}\nwith the square grey: {_per_cent(worst.probability)}"
        )
        grey = self.picture.mean(axis=2)
        right.imshow(grey, cmap="gray", vmin=0, vmax=255)
        heat = self.heat
        limit = max(float(np.abs(heat).max()), 1e-6)
        gains = float(-heat.min()) > GAINS * limit
        colours = {"cmap": DIVERGING, "vmin": -limit} if gains else {"cmap": "inferno", "vmin": 0}
        # Transparent where nothing changes, so that the photograph shows through.
        alpha = 0.15 + 0.75 * np.clip((np.abs(heat) if gains else heat) / limit, 0, 1)
        image = right.imshow(heat, vmax=limit, alpha=alpha, **colours)
        right.set_title(f"what {self.label} rests on\n(a square of {self.patch} pixels slid over all of it)")
        label = "probability lost where covered" + (" (below 0: gained)" if gains else "")
        image_bar = figure.colorbar(image, ax=right, label=label, shrink=0.85)
        image_bar.solids.set_alpha(1)
        for axes in (left, right):
            as_photograph(axes)


def study(photo: str, patch: int, step: int, label: str | None, model: str) -> Occlusion:
    """Slide a grey patch over a photograph.

    Parameters
    ----------
    photo : str
        A file.
    patch, step : int
        The patch's side and how far it moves, in pixels of the network's input.
    label : str, optional
        Name or index of the class to look at; the most probable if None.
    model : str
        Weights known by name or a checkpoint.

    Raises
    ------
    ImageError
        If the photograph cannot be read.
    ValueError
        If there is no such class, or the patch is larger than the network's input.
    """
    network = load_network(model)
    network.require_classifier()
    x = network.preprocess(read_image(photo))
    size = x.shape[1:]
    if patch > min(size):
        raise ValueError(f"the patch must fit the network's input, {size[0]}x{size[1]} pixels, got {patch}")
    whole = _probabilities(network, x[None])[0]
    chosen = int(whole.argmax()) if label is None else _class(network.classes, label)
    corners = [(row, column) for row in _starts(size[0], patch, step) for column in _starts(size[1], patch, step)]
    places = []
    for start in range(0, len(corners), BATCH):
        some = corners[start : start + BATCH]
        batch = np.repeat(x[None], len(some), axis=0)
        for image, (row, column) in zip(batch, some, strict=True):
            image[:, row : row + patch, column : column + patch] = GREY
        for (row, column), left in zip(some, _probabilities(network, batch), strict=True):
            places.append(Place(row, column, float(left[chosen]), network.classes[int(left.argmax())]))
    picture = visible(x, network.preprocessing)
    name, probability = network.classes[chosen], float(whole[chosen])
    return Occlusion(photo, network.architecture, name, probability, patch, size, places, picture)


def _per_cent(probability: float) -> str:
    """With as many digits as tell it from nothing."""
    return f"{probability:.1%}" if probability >= 0.01 else f"{100 * probability:.2g}%"


def _starts(size: int, patch: int, step: int) -> list[int]:
    """Where the patch begins along one axis: every step, and at the end."""
    return sorted({*range(0, size - patch + 1, step), size - patch})


def _probabilities(network: Model, x: np.ndarray) -> np.ndarray:
    logits = network(x).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _class(classes: Sequence[str], label: str) -> int:
    """The index of a class by its name or number."""
    if label in classes:
        return classes.index(label)
    if label.isdigit() and int(label) < len(classes):
        return int(label)
    near = [name for name in classes if label.lower() in name.lower()][:5] or get_close_matches(label, classes, 5)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise ValueError(
        f"no class {label!r}{hint}; give a name (npmobilenet classify prints them) or 0 to {len(classes) - 1}"
    )
