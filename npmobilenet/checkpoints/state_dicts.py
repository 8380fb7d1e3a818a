"""From the object in a checkpoint to the weights: which dict, which entries, which names.

The dict
    A checkpoint may *be* a state dict or hold some, at any level, beside epochs, arguments and optimizers. A whole
    pickled module stands for its state dict. From the outermost dict inwards: if one of ``WRAPPERS`` leads to tensors,
    the first of them in the order below is followed; otherwise the entry that leads to the most tensors, the first of
    equals, unless the dict has as many itself, single numbers aside. So ``{"state_dict": …, "rng_state": tensor}``
    is not mistaken for a state dict. Optimizers are left alone.

The averaged copy
    Training often keeps a moving average of the weights (EMA) beside them, under a name of which ``ema`` or one of the
    other ``AVERAGES`` is a word. It is what the training's own tools evaluate and publish (timm, torchvision), so it is
    taken, unless it lacks tensors that the weights have. Some files keep both in one dict, under two prefixes. MMEngine
    saves the two in each other's place: what is trained under ``ema_state_dict``, with the number of steps.

The entries
    Values that are not tensors are left out, and so are the tensors in ``BOOKKEEPING``, which training
    counts with and inference never reads.

The names
    A prefix in ``PREFIXES`` goes if every remaining name has it, repeatedly: DataParallel, torch.compile and
    Lightning modules wrap the network in one attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from npmobilenet.checkpoints.allowance import Allowance
from npmobilenet.checkpoints.foreign import Foreign, ForeignObject
from npmobilenet.checkpoints.modules import is_module, state_dict
from npmobilenet.checkpoints.numpy_array import NumpyArray
from npmobilenet.checkpoints.quantised import unpacked
from npmobilenet.checkpoints.stored_tensor import StoredTensor, Tensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "net_state_dict", "module",
    "weights", "params", "parameters", "backbone", "student", "generator", "teacher",
)  # fmt: skip
AVERAGES = {"ema", "swa", "averaged"}
OPTIMIZERS = {"optim", "optimizer", "optimizers"}
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
BOOKKEEPING = ("num_batches_tracked", "n_averaged", "steps", "total_ops", "total_params")  # the last two: of thop

MMENGINE_TRAINED = ("ema_state_dict",)
_WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

MAX_NESTING = 8
MAX_PARTS = 16  # of a file's weights that are compared with the averaged copy
MAX_OTHERS, MAX_KEY = 100, 200  # state dicts listed, characters of each key
SAVE = "save model.state_dict()"


@dataclass(frozen=True)
class Found:
    """A state dict in a checkpoint.

    Attributes
    ----------
    tensors : dict of str to Tensor
    path : tuple of str
        The keys that lead to it; empty if it is the checkpoint itself.
    others : tuple of str
        `name_of` the other state dicts there are.
    """

    tensors: dict[str, Tensor]
    path: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def name_of(path: tuple[str, ...]) -> str:
    """The keys that lead to a state dict, joined by dots."""
    return ".".join(key[:MAX_KEY] for key in path)


def find_state_dict(
    checkpoint: object, allowance: Allowance, ema: bool | None = None, foreign: tuple[str, ...] = ()
) -> Found:
    """Return the state dict in ``checkpoint``, with the prefixes removed that all names share.

    ``ema`` demands the averaged copy (True) or the weights beside it (False); ``foreign`` are the names of Python
    objects that the file refers to, for an error.
    """
    if isinstance(checkpoint, Tensor) and not isinstance(checkpoint, NumpyArray):
        raise CheckpointError(f"holds a single tensor, not a state dict; {SAVE}")
    search = _Search(allowance)
    raw, average = search.weights(checkpoint), search.average(checkpoint)
    if average.path[-1:] == MMENGINE_TRAINED and "steps" in average.tensors and raw.tensors:
        raw, average = average, raw
    if not raw.tensors and not average.tensors:
        raise CheckpointError(_nothing(checkpoint, foreign))
    if not raw.tensors and ema is False:
        raise CheckpointError(f"holds averaged weights only ({quote(name_of(average.path))}); leave ema=False out")
    chosen = raw
    if average.tensors and ema is not False and (ema or _is_whole(_strip(average.tensors), _strip(raw.tensors))):
        chosen = average
    found = _choose_prefix(replace(chosen, tensors=_strip(chosen.tensors)), ema if chosen is raw else None)
    if ema and found.path == raw.path:
        raise CheckpointError(
            "holds no averaged copy of its weights (under a name such as 'state_dict_ema', 'model_ema' or 'ema'); "
            "leave ema=True out"
        )
    return replace(found, others=(*found.others, *search.others(checkpoint, chosen.path)))


def raw_tensors(checkpoint: object, allowance: Allowance) -> dict[str, Tensor]:
    """Return the state dict in ``checkpoint`` as it is, averaged copies aside."""
    return _Search(allowance).weights(checkpoint).tensors


def is_average(name: str) -> bool:
    """Whether an entry of this name is an averaged copy of weights."""
    return not AVERAGES.isdisjoint(_words(name)) and not _is_optimizer(name)


def _is_whole(copy: dict[str, Tensor], original: dict[str, Tensor]) -> bool:
    """Whether a copy lacks nothing, or nothing of a part of the original: the network without its loss."""
    if len(copy) >= len(original):
        return True
    first = next(iter(copy), "")
    parts = (name.removesuffix(first) for name in original if first and name.endswith(f".{first}"))
    return any(
        all(name.removeprefix(part) in copy for name in original if name.startswith(part))
        for part in islice(parts, MAX_PARTS)
    )


def _is_optimizer(name: str) -> bool:
    return not OPTIMIZERS.isdisjoint(_words(name))


def _words(name: str) -> list[str]:
    """The words of a name such as ``model_ema``, ``net.EMA``, ``modelEma``, ``EMACallback``."""
    return re.split(r"[^a-z]+", _WORD_BEGINS.sub("_", name[:MAX_KEY]).lower())


class _Search:
    """Looks for state dicts in one checkpoint; every dict costs once, cycles too."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._found: dict[int, Found] = {}
        self._modules: dict[int, dict[str, Tensor]] = {}

    def entries(self, value: object) -> dict[str, object]:
        """The content of ``value`` as a dict."""
        if type(value) is StoredTensor:  # as nearly all values are
            return {}
        if is_module(value):
            if id(value) not in self._modules:
                self._modules[id(value)] = state_dict(value, self._allowance)
            return self._modules[id(value)]
        if isinstance(value, (ForeignObject, NumpyArray)):
            value = value.entries
        return value if type(value) is dict else {}

    def weights(self, container: object, depth: int = MAX_NESTING) -> Found:
        """Return the tensors that ``container`` leads to, averages aside."""
        if id(container) in self._found or not depth:
            return self._found.get(id(container), Found({}))
        self._found[id(container)] = Found({})
        entries = self.entries(container)
        inner = {
            key: self.weights(value, depth - 1)
            for key, value in entries.items()
            if self.entries(value) and not is_average(key) and not _is_optimizer(key)
        }
        own = _tensors(entries)
        preferred = next((key for key in WRAPPERS if key in inner and inner[key].tensors), None)
        key = preferred or max(inner, key=lambda key: len(inner[key].tensors), default=None)
        inside = replace(inner[key], path=(key, *inner[key].path)) if key is not None else Found({})
        numbers = sum(map(_is_number, own.values()))
        if own and not preferred and len(own) - numbers >= len(inside.tensors):
            result = Found(own)
        else:
            result = inside
        self._found[id(container)] = result
        return result

    def average(self, container: object) -> Found:
        """Return the tensors of the outermost averaged copy."""
        for path, value in self._walk(container):
            if path and is_average(path[-1]):
                found = self.weights(value)
                if found.tensors:
                    return replace(found, path=(*path, *found.path))
        return Found({})

    def others(self, container: object, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the state dicts that are not the chosen one."""
        paths = (
            path
            for path, value in self._walk(container)
            if path != chosen
            and (type(value) is dict or is_module(value))
            and not all(map(_is_number, _tensors(self.entries(value)).values()))
        )
        return tuple(map(name_of, islice(paths, MAX_OTHERS)))

    def _walk(self, container: object) -> Iterator[tuple[tuple[str, ...], object]]:
        """Yield every dict and module with the keys that lead to it, the outermost first; optimizers aside."""
        level, seen = [((), container)], {id(container)}
        for _ in range(MAX_NESTING):
            yield from level
            below = []
            for path, value in level:
                for key, entry in self.entries(value).items():
                    if id(entry) not in seen and self.entries(entry) and not _is_optimizer(key):
                        seen.add(id(entry))
                        below.append(((*path, key), entry))
            level = below


def _tensors(entries: dict[str, object]) -> dict[str, Tensor]:
    """The tensors among the entries of a dict."""
    found: dict[str, Tensor] = {}
    for name, value in entries.items():
        if isinstance(value, NumpyArray) and not value.holds_numbers:
            continue
        if isinstance(value, Tensor):
            found[name] = value
        else:
            found |= unpacked(name, value)
    return found


def _is_number(tensor: Tensor) -> bool:
    return isinstance(tensor, StoredTensor) and tensor.shape == ()


def _nothing(checkpoint: object, foreign: tuple[str, ...]) -> str:
    """Say what a checkpoint without tensors is."""
    refers = ""
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        names = "objects " if len(foreign) > 1 else "object "
        names += ", ".join(map(quote, foreign[:3])) + more
        refers = f"; it refers to the Python {names}, and nothing of it was imported or run"
    if isinstance(checkpoint, ForeignObject) and checkpoint.kind.startswith("__torch__."):
        return f"is a TorchScript program whose weights are constants without names (torch.jit.freeze); {SAVE}"
    if isinstance(checkpoint, ForeignObject):
        return f"holds an object of the Python class {quote(checkpoint.kind)} without tensors{refers}; {SAVE}"
    if isinstance(checkpoint, Foreign):
        return f"holds the Python object {quote(checkpoint.name)}, not a state dict, and nothing of it was run; {SAVE}"
    if isinstance(checkpoint, NumpyArray):
        return f"holds a single array, not a state dict{refers}; {SAVE}"
    if type(checkpoint) is not dict:
        return f"holds a {type(checkpoint).__name__.lower()}, not a state dict{refers}; {SAVE}"
    keys = ", ".join(quote(key, 30) for key in list(checkpoint)[:8]) or "nothing"
    return f"holds no tensors (but {keys}){refers}; {SAVE}"


def _strip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out bookkeeping and remove the prefixes that all names share."""
    kept = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in BOOKKEEPING}
    for _ in range(MAX_NESTING):
        prefix = next((p for p in PREFIXES if all(len(name) > len(p) and name.startswith(p) for name in kept)), "")
        if not prefix or not kept:
            break
        kept = {name.removeprefix(prefix): tensor for name, tensor in kept.items()}
    return kept


def _choose_prefix(found: Found, ema: bool | None) -> Found:
    """Choose between weights and their averaged copy in one dict, told apart by the first part of their names."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in found.tensors.items():
        first, _, rest = name.partition(".")
        if rest:
            parts.setdefault(first, {})[rest] = tensor
    averages = {first: _strip(part) for first, part in parts.items() if is_average(first)}
    if not averages:
        return found
    raw = {name: tensor for name, tensor in found.tensors.items() if name.partition(".")[0] not in averages}
    beside = {"": raw, **{first: _strip(part) for first, part in parts.items() if first not in averages}}
    for average, copy in averages.items():
        first = max(beside, key=lambda first: len(beside[first].keys() & copy.keys()))
        original = beside[first]
        if 2 * len(original.keys() & copy.keys()) <= len(copy):
            continue  # no copy of anything here, whatever its name says
        if ema is False or (ema is None and not original.keys() <= copy.keys()):
            return replace(found, tensors=_strip(raw), others=(name_of((*found.path, average)),))
        others = (name_of((*found.path, first)),) if first else ()
        return Found(copy, (*found.path, average), others)
    return found
