"""What stands where in a table of kernel calls, and in the job of running it: in int64."""

KERNEL, ITEMS, SHARE, ARGUMENTS = 0, 1, 2, 3  # columns of a table

# A job. The first line is read by all threads and written by none; the second is about who takes part.
TABLE, ROW_BYTES, ROWS, THREADS, COUNTERS, OUTCOME, SLOTS = range(7)
GUESTS, ARRIVED = 8, 9
PLACES = 16  # from here on, for each thread: its scratch, and, but for the first, a helper's mailbox or 0
SCRATCH, MAILBOX, PLACE_WORDS = 0, 1, 2

CLOSED = -1  # of GUESTS: the one whose job it is makes it ready
DONE, ABSENT, OCCUPIED = range(3)  # of OUTCOME

LINE = 64  # bytes: of a row's counters each thread has a line for its own range, and one says what is done

NEXT = -8  # bytes from a thread's scratch: the item after the last one that it computed of this row, or -1
LOG = -16  # bytes from a thread's scratch: a word that walks leave to who traces them
HEAD = 64  # bytes before the scratch
