"""Plans that were made before (`npmobilenet.packing.record`): for certain CPUs and one size of images.

``recording``  how a plan is written down: its calls as numbers, and which of these are addresses
``program``    plans as they were recorded, made to fit where things are in this process
``layers``     what plans are made of, where images differ in size; ``libraries``: machine code
``folding``    the weights of a file as kernels read them, where they are not kept so
"""
