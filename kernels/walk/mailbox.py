"""How a thread that waits in compiled code is told what to do: one word, which is one of these or a job's address."""

BUSY, WAITING = range(2)
LENGTH = 8  # int64: a cache line of its own
