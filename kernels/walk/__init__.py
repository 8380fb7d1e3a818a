"""How a table of kernel calls is run: one walk over it, by one thread or several.

``walker``    a run of the table, and what helpers do in it; Numba compiles these
``columns``   what stands where in a table, and in the job of running it
``job``       that job: what the threads share
``threads``   helpers that take part in a walk
``mailbox``   how a thread that waits in compiled code is told what to do
``compiled``  the walker's functions, compiled
"""
