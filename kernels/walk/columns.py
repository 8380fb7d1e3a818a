"""What stands where in a table of kernel calls, and in what threads count: in int64."""

KERNEL, ITEMS, SHARE, ARGUMENTS = 0, 1, 2, 3  # columns of a table
COUNTERS = 16  # for each row: items taken, and, a cache line further, items done
