"""SHA-256 of Python itself: `hashlib` loads OpenSSL, which takes longer than to hash all that is hashed at a start."""

try:
    from _sha2 import sha256
except ImportError:
    try:
        from _sha256 import sha256  # before Python 3.12
    except ImportError:  # a Python that was built with OpenSSL's alone
        from hashlib import sha256

try:
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

__all__ = ["fingerprint", "sha256"]


def fingerprint(source: bytes) -> str:
    """Return what tells a source from an edited one: BLAKE2b, which here takes a third of the time of SHA-256."""
    return blake2b(source, digest_size=16).hexdigest()
