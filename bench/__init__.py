"""Benchmarks: every kernel on the layers of real networks, and whole networks.

    pytest bench --benchmark-only -k depthwise
    python -m npmobilenet.bench.peers               the same network in other runtimes, each in a process of its own
    python -m npmobilenet.bench.machine_limits      what this CPU can do at most

Every case is compared with the reference before it is timed; arithmetic and memory rates stand in the columns
of extra information of ``--benchmark-json``.
"""
