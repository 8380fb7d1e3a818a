"""From a network's outputs to what a person asked for, in NumPy: one file for each task.

``detection``     boxes around things, from SSD's outputs; ``yolo``, ``centers``: from YOLO's, and from CenterNet's
``boxes``         anchors, box codes, overlap, suppression: what detectors are made of
``segmentation``  the class of every pixel
"""
