"""What a Numba function needs to run kernels and to meet other threads, on Numba's extension API."""

from __future__ import annotations

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npmobilenet.kernels.vector.simd import ADDRESS, I32, I64


@intrinsic
def call(typing_context, address, arguments, first, last, scratch):
    """Call the kernel at ``address``; all five are integers."""

    def generate(context, builder, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [ADDRESS, I64, I64, ADDRESS])
        address, arguments, first, last, scratch = values
        function = builder.inttoptr(address, kind.as_pointer())
        arguments, scratch = (builder.inttoptr(value, ADDRESS) for value in (arguments, scratch))
        builder.call(function, [arguments, first, last, scratch])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def load(typing_context, address):
    """The 64-bit integer at an address."""

    def generate(context, builder, signature, values):
        return builder.load(builder.inttoptr(values[0], ADDRESS), typ=I64)

    return types.int64(types.int64), generate


@intrinsic
def store(typing_context, address, value):
    """Write the 64-bit integer at an address."""

    def generate(context, builder, signature, values):
        builder.store(values[1], builder.inttoptr(values[0], I64.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def atomic_load(typing_context, address):
    """The 64-bit integer at an address, and with it all that was written before it was."""

    def generate(context, builder, signature, values):
        return builder.load_atomic(builder.inttoptr(values[0], ADDRESS), "acquire", 8, typ=I64)

    return types.int64(types.int64), generate


@intrinsic
def atomic_add(typing_context, address, amount):
    """Add to the 64-bit integer at an address, as one step for all threads; returns what it was."""

    def generate(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], ADDRESS)
        return builder.atomic_rmw("add", pointer, values[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_store(typing_context, address, value):
    """Write the 64-bit integer at an address, after all that was written before."""

    def generate(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], I64.as_pointer())  # llvmlite checks its type here
        builder.store_atomic(values[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def atomic_replace(typing_context, address, old, new):
    """Write ``new`` at an address if ``old`` stands there, as one step for all threads; returns what stood there."""

    def generate(context, builder, signature, values):
        address, old, new = values
        pointer = builder.inttoptr(address, ADDRESS)
        return builder.extract_value(builder.cmpxchg(pointer, old, new, "acq_rel", "acquire"), 0)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typing_context):
    """Wait a moment without leaving the CPU."""

    def generate(context, builder, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [])
        if platform.machine().lower() in ("x86_64", "amd64"):
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def leave_python(typing_context):
    """Let other threads of Python run; returns what this one comes back with."""

    def generate(context, builder, signature, values):
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, []), "PyEval_SaveThread")
        return builder.call(function, [])

    return types.int64(), generate


@intrinsic
def come_back(typing_context, state):
    """Wait until this thread may run Python again."""

    def generate(context, builder, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "PyEval_RestoreThread"), values)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def yield_to_others(typing_context):
    """Let the system run another thread."""

    def generate(context, builder, signature, values):
        name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
        builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), name), [])
        return context.get_dummy_value()

    return types.void(), generate
