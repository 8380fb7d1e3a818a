"""From the object in a checkpoint to the weights: which dict, which entries, which names.

The dict
    A checkpoint may *be* a state dict or hold one, at any level, beside epochs, arguments and optimizers.
    From the outermost dict inwards: if one of ``WRAPPERS`` leads to tensors, the first of them in the order
    below is followed; otherwise, if the dict itself has tensors, that is it; otherwise the entry that leads
    to the most tensors is followed, the first of equals. So the plain weights win over their moving average
    (EMA), and ``{"state_dict": …, "best_accuracy": tensor(71.9)}`` is not mistaken for a state dict.

The entries
    Values that are not tensors are left out, and so are the tensors in ``BOOKKEEPING``, which training
    counts with and inference never reads.

The names
    A prefix in ``PREFIXES`` goes if every remaining name has it, repeatedly: DataParallel, torch.compile and
    Lightning modules wrap the network in one attribute.
"""

from __future__ import annotations

from npmobilenet.checkpoints.stored_tensor import Tensor
from npmobilenet.errors import CheckpointError
from npmobilenet.text import quote

WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "net_state_dict", "module",
    "weights", "params", "parameters", "backbone", "student", "generator",
    "state_dict_ema", "model_ema_state_dict", "model_ema", "ema_state_dict", "ema", "params_ema", "teacher",
)  # fmt: skip
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
BOOKKEEPING = ("num_batches_tracked", "n_averaged")

MAX_NESTING = 8


def find_state_dict(checkpoint: object) -> dict[str, Tensor]:
    """Return the named tensors of the state dict in ``checkpoint``."""
    if isinstance(checkpoint, Tensor):
        raise CheckpointError("holds a single tensor, not a state dict; save model.state_dict()")
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"holds a {type(checkpoint).__name__.lower()}, not a state dict; save model.state_dict()")
    found = _search(checkpoint, {}, MAX_NESTING)
    if not found:
        keys = ", ".join(quote(key, 30) for key in list(checkpoint)[:8]) or "nothing"
        raise CheckpointError(f"holds no tensors (but {keys}); save model.state_dict()")
    return found


def _search(container: dict, seen: dict[int, dict], depth: int) -> dict[str, Tensor]:
    """Return the tensors that ``container`` leads to; ``seen`` makes every dict cost once, cycles too."""
    if id(container) in seen or not depth:
        return seen.get(id(container), {})
    seen[id(container)] = {}
    inner = {key: _search(value, seen, depth - 1) for key, value in container.items() if isinstance(value, dict)}
    own = {key: value for key, value in container.items() if isinstance(value, Tensor)}
    preferred = [inner[key] for key in WRAPPERS if inner.get(key)]
    result = (preferred or [own])[0] or max(inner.values(), key=len, default={})
    seen[id(container)] = result
    return result


def weights_only(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out bookkeeping and remove the prefixes that all names share."""
    kept = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in BOOKKEEPING}
    for _ in range(MAX_NESTING):
        prefix = next((p for p in PREFIXES if all(len(name) > len(p) and name.startswith(p) for name in kept)), "")
        if not prefix or not kept:
            break
        kept = {name.removeprefix(prefix): tensor for name, tensor in kept.items()}
    return kept
