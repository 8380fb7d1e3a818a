"""Where a thread that waits in compiled code is told what to do: what stands where, in int64."""

STATE, ACCEPTED = 0, 8  # a cache line apart: the waiting thread looks at the first all the time
JOB = 9  # the five arguments of a walk
LENGTH = 16
BUSY, WAITING, POSTING, POSTED = range(4)  # states
