"""Benchmarks: every kernel on the layers of real networks, and whole networks.

    pytest bench --benchmark-only -k depthwise

Every case is compared with the reference before it is timed; arithmetic and memory rates stand in the columns
of extra information of ``--benchmark-json``.
"""
