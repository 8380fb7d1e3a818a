"""Networks in ONNX files: read and written without the package of that name, and run as they are.

``file``, ``tensors``
    An ONNX file as nodes and arrays: :func:`~npmobilenet.onnx.file.read_model`.
``operator``
    What an operator is: the table of all, and the check of a node's attributes.
``elementwise``, ``windows``, ``arrangement``, ``reductions``, ``resizing``, ``integers``
    What every operator computes, in NumPy.
``shapes``
    A graph for inputs of certain shapes: what follows from shapes and constants is computed once.
``patterns``
    What exporters write in several nodes, as one.
``conversion``
    From nodes to this package's graphs, operator by operator.
``parts``
    Which nodes make a graph for the fast kernels, and which NumPy computes between; how these are run.
``writing``
    A graph as an ONNX file.
"""
