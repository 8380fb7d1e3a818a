"""The same network in this package and in other runtimes, measured in turns on this machine.

    python -m npmobilenet.bench.peers                    # latency and throughput of every runtime installed
    python -m npmobilenet.bench.peers --startup --memory

`networks` has the networks and their files: the ONNX file is the one that `npmobilenet export` writes, for LiteRT and
PyTorch `folded` describes the layers (`tflite_export`). `workers` starts a process for each runtime (`bench.runtimes`),
`measure` has the measurements, `report` prints them; `command` is what all commands that compare runtimes have in
common.
"""
