"""Collections of photographs, from file to result: ``python -m npmobilenet.bench.stream``.

How many images a second :func:`npmobilenet.stream` does, beside what their cost in CPU time allows, and beside
``torch_loader.py``, a script of PyTorch's DataLoader and onnxruntime, where these are installed; with ``--memory`` how
much memory a long run takes.
"""
