"""Benchmarks: kernels on the layers of real networks, ladders, whole networks, other runtimes, the machine.

    npmobilenet bench                               a network layer by layer, ladders, peers; saved runs compared
    pytest bench --benchmark-only -k depthwise      every kernel (test_kernels), rung (test_ladder), network
                                                    (test_networks), start-up and memory (test_processes)
    python -m npmobilenet.bench.peers               the same network in other runtimes, each in a process of its own
    python -m npmobilenet.bench.stream              images a second from file to classes, beside a DataLoader; memory
    python -m npmobilenet.bench.depthwise           depthwise and mixed layers inside a network, beside the peers
    python -m npmobilenet.bench.start               from the start of a process to the first label
    python -m npmobilenet.bench.machine_limits      what this CPU can do at most

What computes is compared with the reference before it is timed. `roofline` says what is possible: the machine's
peak and bandwidths are probed in the same run. `network`, `ladder` and `peers` measure, `record` keeps what they
find, `compare` sets two records beside each other, `documents` writes them into the README and docs/, `report` makes
a page of them. `profile` times a network and its layers; `study` computes and measures what the papers claim
(`npmobilenet study`).
"""
