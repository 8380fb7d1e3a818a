"""Compiled kernels run, checked and counted without a GPU.

The compiler makes PTX, the instructions of NVIDIA's virtual machine, of every kernel, on any computer. Here these are
executed by NumPy, an instruction for many threads at once. So the compiled code gives answers that can be compared,
every access to memory can be checked as compute-sanitizer does, and what a kernel asks of memory can be counted. It
says nothing about time, and nothing about what the driver makes of the PTX afterwards.

``parser``      the text as basic blocks of instructions
``arithmetic``  what instructions without memory compute
``memory``      arrays of the device and shared memory, with their checks and counts
``machine``     threads: who executes what, branches, barriers
``pretended``   a device that is not there: arrays and launches of this package, run by the machine
``counts``      what kernels ask of memory, the table of docs/cuda.md: ``python -m tests.ptx.counts docs/cuda.md``
"""
