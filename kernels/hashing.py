"""SHA-256 of Python itself: `hashlib` loads OpenSSL, which takes longer than to hash all that is hashed at a start."""

try:
    from _sha2 import sha256
except ImportError:
    try:
        from _sha256 import sha256  # before Python 3.12
    except ImportError:  # a Python that was built with OpenSSL's alone
        from hashlib import sha256

__all__ = ["sha256"]
