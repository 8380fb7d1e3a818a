"""What the CUDA kernels do on a GPU: right answers first, then how much of the device they use.

    python -m npmobilenet.bench.cuda --out results        # everything, in less than eight minutes
    python -m npmobilenet.bench.cuda --smoke              # tiny sizes, in the simulator too
    compute-sanitizer python -m npmobilenet.bench.cuda --sanitizer

One call on a machine with a GPU and nothing else: what is not installed is left out, and what fails is a line in the
report. `timing` measures, `correctness` compares, `layers` and `networks` have what is measured, `torch_networks` and
`onnx_networks` the same networks in other runtimes, `report` writes. What compiled kernels ask of memory is counted
without a GPU by `tests/ptx`.
"""
