"""How a table of kernel calls is run: one walk over it, by one thread or several.

``walker``    the loop over the table, which Numba compiles
``columns``   what stands where in a table, and in what threads count
``threads``   helpers that take part in a walk
``mailbox``   how a thread that waits in compiled code is told what to do
``compiled``  the walker's functions, compiled
"""
