"""The backends by name: what can compute a network. The only place where their names stand."""

# Nothing is imported here: the command line names them before NumPy is there.

BACKENDS = {
    "auto": "the fastest kernels of the CPU: blocked, or plain for a network that those cannot compute",
    "blocked": "explicit vectors on tensors blocked by channels",
    "plain": "readable loops compiled by Numba",
    "cuda": "an NVIDIA GPU",
    "reference": "the NumPy definitions in float64",
}
DEFAULT = "auto"
ALIASES = {"cpu": "auto", "njit": "plain"}  # names that they had


def current_name(name: str) -> str:
    """Return what a backend is called now; a name that is unknown as it is."""
    return ALIASES.get(name, name)


def checked_backend(name: str) -> str:
    """Return a backend's name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    current = current_name(name) if isinstance(name, str) else None
    if current not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r:.40}")
    return current
