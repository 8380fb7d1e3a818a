"""Networks on an NVIDIA GPU (`kernels.cuda`).

``lowering``  which launches a graph becomes
``plan``      for one image size and batch: weights, activations and recorded launches on the device
``memory``    one arena, and the error when the device has too little
``arrays``    what goes in and out: NumPy arrays, or arrays that stay on the device
``layout``    the kernel that brings a caller's array into the network's layout
``graphs``    launches recorded as a CUDA graph, through the driver
"""
