"""How much memory and work a file of some size may cause."""

from __future__ import annotations

from npmobilenet.errors import CheckpointError

BYTES_BASE = 16 * 2**20
BYTES_FACTOR = 8

OPCODES_BASE = 100_000  # a MobileNet with its optimizer has about 50,000
MAX_OPCODES = 4_000_000  # a list of a million losses still passes


class Allowance:
    """What may come to life that does not stand in the file as it is; one for all that is read of a checkpoint.

    Bytes
        A kilobyte can declare a terabyte: a stride of 0 repeats one number, a compressed member is a long run of
        zeros, a thousand tensors share one storage, a pickle of two bytes makes a dict of 64. What is merely viewed
        costs nothing; every converted, gathered, decompressed or unpickled byte is charged here. The limit is 16 MiB +
        8 × the size of the file: float16 to float32 is a factor of 2, compressed weights rarely reach 2 again,
        and small files get the 16 MiB.
    Opcodes
        Of pickles: 100,000 + one for every byte of the file, which no pickle exceeds that stands in it uncompressed,
        and at most 4 million.
    """

    def __init__(self, file_size: int) -> None:
        self.bytes = self.bytes_left = BYTES_BASE
        self.opcodes = self.opcodes_left = OPCODES_BASE
        self.grow(file_size)

    def grow(self, file_size: int) -> None:
        """Add what a file of this size may cause; the bases are of all files together."""
        more = min(file_size, MAX_OPCODES - self.opcodes)
        self.opcodes, self.opcodes_left = self.opcodes + more, self.opcodes_left + more
        self.bytes, self.bytes_left = self.bytes + BYTES_FACTOR * file_size, self.bytes_left + BYTES_FACTOR * file_size

    def take(self, nbytes: int, what: str) -> None:
        """Charge ``nbytes`` for ``what``."""
        if nbytes > self.bytes_left:
            raise CheckpointError(
                f"{what} would expand to {nbytes} bytes; a file of this size may expand to {self.bytes} "
                f"bytes in all (16 MiB + {BYTES_FACTOR} × its size), of which {self.bytes_left} are left; "
                "save contiguous, uncompressed tensors"
            )
        self.bytes_left -= nbytes

    def take_opcode(self, nbytes: int) -> None:
        """Charge one opcode of a pickle, which makes objects of ``nbytes``."""
        self.opcodes_left -= 1
        if self.opcodes_left < 0:
            raise CheckpointError(
                f"its pickles have more than {self.opcodes} opcodes, the limit of a file of this size; "
                "save the weights alone, uncompressed"
            )
        if nbytes > self.bytes_left:
            self.take(nbytes, "its pickle")
        self.bytes_left -= nbytes
