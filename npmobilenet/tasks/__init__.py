"""From a network's outputs to what a person asked for, in NumPy: one file for each task.

``detection``  boxes around things
``boxes``      anchors, box codes, overlap, suppression: what detectors are made of
"""
