"""What one thread does with its registers: the vocabulary in which the CUDA kernels are written.

A thread keeps its values in local arrays. Such an array stays in registers only if every index is known when the
kernel is compiled, so the loops over it must be unrolled, and Numba's and NVVM's are not for certain. Here each
operation is emitted as straight-line LLVM IR instead, with loads and stores of up to 16 bytes: this is the only file
of the CUDA kernels that speaks LLVM IR. What an operation means is written in NumPy, and that is what the simulator
runs. Arguments called ``count``, ``lanes``, ``rows``, ``at``... must be constants of the kernel's closure.

Memory, of the device or shared, is one-dimensional, float32 or float16 (values are float32 in any case). Shared memory
is declared as complex128, `QUAD`, for its alignment of 16 bytes.
"""

# ruff: noqa: ANN001 (in kernels: flat device arrays, and integers)

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from llvmlite import ir

from npmobilenet.kernels import checks
from npmobilenet.kernels.cuda import device
from npmobilenet.kernels.cuda.device import types

QUAD = types.complex128
FLOAT, HALF, LONG, INT = ir.FloatType(), ir.HalfType(), ir.IntType(64), ir.IntType(32)
SHORT = ir.IntType(16)
GLOBAL, SHARED = 1, 3  # the address spaces
LOG2_E = 1.4426950408889634
LOG2_E_HIGH = float(np.float32(LOG2_E))
LOG2_E_LOW = LOG2_E - LOG2_E_HIGH
LARGEST = 88.72283  # exp of more is infinite in float32, and below
SMALLEST = -103.0  # zero, or nearly


def _memory(x: Any) -> np.ndarray:
    """What the simulator's wrappers hold."""
    x = getattr(getattr(x, "_item", x), "_ary", x)
    return x.view(np.float32) if x.dtype == np.complex128 else x


class Emitter:
    """Writes LLVM IR."""

    def __init__(self, context: Any, builder: ir.IRBuilder) -> None:
        self.context, self.builder = context, builder

    def array(self, kind: Any, value: ir.Value) -> Memory:
        """The memory of an array argument."""
        data = self.context.make_array(kind)(self.context, self.builder, value).data
        if kind.dtype == QUAD:  # only shared memory is declared so
            return Memory(self, self.builder.addrspacecast(data, FLOAT.as_pointer(SHARED)), FLOAT)
        half = kind.dtype == types.float16
        return Memory(self, self.builder.bitcast(data, (HALF if half else FLOAT).as_pointer()), HALF if half else FLOAT)

    def long(self, value: Any) -> ir.Value:
        """A 64-bit integer from any."""
        if isinstance(value, int):
            return ir.Constant(LONG, value)
        return value if value.type == LONG else self.builder.sext(value, LONG)

    def plus(self, value: Any, times: int, step: Any) -> ir.Value:
        """``value + times * step``."""
        step = self.long(step)
        return self.builder.add(self.long(value), self.builder.mul(self.long(times), step)) if times else value

    def within(self, value: Any, limit: Any) -> ir.Value | bool:
        """Whether ``0 <= value < limit``, in one comparison, or in none if both are constants."""
        if isinstance(value, int) and isinstance(limit, int):
            return 0 <= value < limit
        return self.builder.icmp_unsigned("<", self.long(value), self.long(limit))

    def both(self, a: ir.Value | bool, b: ir.Value | bool) -> ir.Value | bool:
        """``a and b``, of constants or not."""
        if isinstance(a, bool) or isinstance(b, bool):
            return (b if a else False) if isinstance(a, bool) else (a if b else False)
        return self.builder.and_(a, b)

    def negative(self, x: ir.Value) -> ir.Value:
        """``-x``, without the instruction that older versions of NVVM do not know."""
        return self.builder.fsub(self.number(-0.0), x)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a * b + c``, rounded once."""
        return self.builder.fma(a, b, c)

    def approximate(self, instruction: str, x: ir.Value) -> ir.Value:
        """An instruction of the special function unit, exact to a unit or two in the last place."""
        kind = ir.FunctionType(FLOAT, [FLOAT])
        return self.builder.call(ir.InlineAsm(kind, f"{instruction}.approx.f32 $0, $1;", "=f,f"), [x])

    def number(self, value: float) -> ir.Constant:
        """A float32 constant."""
        return ir.Constant(FLOAT, float(np.float32(value)))

    def clamp(self, x: ir.Value, low: float | None, high: float | None) -> ir.Value:
        """Limit ``x`` by comparisons that a NaN passes: it compares false with everything."""
        if low is not None:
            x = self.builder.select(self.builder.fcmp_ordered("<", x, self.number(low)), self.number(low), x)
        if high is not None:
            x = self.builder.select(self.builder.fcmp_ordered(">", x, self.number(high)), self.number(high), x)
        return x

    def exp(self, x: ir.Value) -> ir.Value:
        """``e^x`` as ``2^t (1 + e ln 2)``: t is ``x log2(e)`` in float32, and e what rounding took from it."""
        power = self.clamp(x, SMALLEST, LARGEST)
        exponent = self.builder.fmul(power, self.number(LOG2_E_HIGH))
        error = self.fma(power, self.number(LOG2_E_HIGH), self.negative(exponent))
        error = self.fma(power, self.number(LOG2_E_LOW), error)
        result = self.approximate("ex2", exponent)
        result = self.fma(result, self.builder.fmul(error, self.number(np.log(2))), result)
        infinite = self.builder.fcmp_ordered(">", x, self.number(LARGEST))
        return self.builder.select(infinite, self.number(np.inf), result)

    def expm1(self, x: ir.Value) -> ir.Value:
        """``e^x - 1`` of what is not above 0; next to 0, where a difference would have few digits, by its series."""
        series = self.number(0)
        for power in range(8, 0, -1):
            series = self.fma(series, x, self.number(1 / math.factorial(power)))
        difference = self.builder.fsub(self.exp(x), self.number(1))
        near = self.builder.fcmp_ordered(">", x, self.number(-0.5))
        return self.builder.select(near, self.builder.fmul(series, x), difference)


def _elements(builder: ir.IRBuilder, vector: ir.Value, count: int) -> list[ir.Value]:
    """The elements of a vector, or of what is none as it has but one."""
    return [vector] if count == 1 else [builder.extract_element(vector, ir.Constant(INT, v)) for v in range(count)]


class Memory:
    """An array as a pointer to its first element."""

    def __init__(self, emit: Emitter, pointer: ir.Value, element: ir.Type) -> None:
        self.emit, self.pointer, self.element = emit, pointer, element

    def _place(self, index: Any, kind: ir.Type, lanes: int) -> ir.Value:
        builder = self.emit.builder
        place = builder.gep(self.pointer, [self.emit.long(index)])
        kind = ir.VectorType(kind, lanes) if lanes > 1 else kind
        return builder.bitcast(place, kind.as_pointer(self.pointer.type.addrspace))

    def load(self, index: Any, lanes: int = 1) -> list[ir.Value]:
        """The float32 values of ``lanes`` elements that follow each other."""
        builder = self.emit.builder

        if self.element == FLOAT or lanes == 1:
            loaded = builder.load(self._place(index, self.element, lanes), align=self._bytes * lanes)
            return self._values(_elements(builder, loaded, lanes))
        # As integers, two in one: NVVM cuts loads of float16 vectors into pieces.
        loaded = builder.load(self._place(index, INT, lanes // 2), align=self._bytes * lanes)
        return self._values(_elements(builder, loaded, lanes // 2))

    def load_where(self, inside: ir.Value, index: Any, lanes: int = 1) -> list[ir.Value]:
        """The same where ``inside``, and zeros without any access elsewhere.

        One instruction with a condition, which the compiler itself makes neither of a branch nor of a selection: it
        would choose an address and then each value, three times the instructions. As many can be under way as one
        likes. Not for what the kernel also writes: the compiler sees no access to memory here.
        """
        builder = self.emit.builder
        if self.element == FLOAT:
            kind, letter, count, name = FLOAT, "f", lanes, "f32"
        elif lanes == 1:
            kind, letter, count, name = SHORT, "h", 1, "b16"
        else:
            kind, letter, count, name = INT, "r", lanes // 2, "u32"
        vector = f".v{count}" if count > 1 else ""
        targets = ", ".join(f"${v}" for v in range(count))
        zeros = "".join(f"mov.{name} ${v}, {'0f00000000' if kind == FLOAT else 0}; " for v in range(count))
        brackets = f"{{{targets}}}" if count > 1 else targets
        test = f"{{.reg .pred inside; setp.ne.s32 inside, ${count}, 0; "  # conditions cannot be handed over
        text = f"{test}{zeros}@inside ld.global{vector}.{name} {brackets}, [${count + 1}];}}"
        result = ir.LiteralStructType([kind] * count) if count > 1 else kind
        place = builder.gep(self.pointer, [self.emit.long(index)])
        place = builder.addrspacecast(place, self.pointer.type.pointee.as_pointer(GLOBAL))
        address = builder.ptrtoint(place, LONG)
        code = ir.InlineAsm(ir.FunctionType(result, [INT, LONG]), text, ",".join([f"={letter}"] * count + ["r", "l"]))
        loaded = builder.call(code, [builder.zext(inside, INT), address])
        parts = [builder.extract_value(loaded, v) for v in range(count)] if count > 1 else [loaded]
        return self._values(parts)

    def _values(self, loaded: list[ir.Value]) -> list[ir.Value]:
        """As float32, what was loaded as it is stored, or as integers of two halves or one."""
        builder, values = self.emit.builder, []
        for each in loaded:
            if each.type == INT:
                values += _elements(builder, builder.bitcast(each, ir.VectorType(HALF, 2)), 2)
            else:
                values.append(builder.bitcast(each, HALF) if each.type == SHORT else each)
        return values if self.element == FLOAT else [builder.fpext(value, FLOAT) for value in values]

    def store(self, index: Any, values: list[ir.Value]) -> None:
        """Store values one after the other."""
        builder, lanes = self.emit.builder, len(values)
        if self.element != FLOAT:
            values = [builder.fptrunc(value, self.element) for value in values]
        stored = values[0]
        if lanes > 1:
            stored = ir.Constant(ir.VectorType(self.element, lanes), ir.Undefined)
            for v, value in enumerate(values):
                stored = builder.insert_element(stored, value, ir.Constant(INT, v))
        builder.store(stored, self._place(index, self.element, lanes), align=self._bytes * lanes)

    @property
    def shared(self) -> bool:
        """Whether it is shared memory."""
        return self.pointer.type.addrspace == SHARED

    @property
    def _bytes(self) -> int:
        return 4 if self.element == FLOAT else 2


OPERATIONS: dict[str, tuple[Callable, Callable]] = {}  # what they mean, and what emits them


def definition(meaning: Callable, lower: Callable) -> Callable:
    """Return what Numba's ``@intrinsic`` takes, of an operation."""
    results = {"int": types.int64, "float": types.float32, "None": types.void}

    def define(typing: Any, *kinds: Any) -> tuple:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: list) -> ir.Value:
            emit = Emitter(context, builder)

            def operand(kind: Any, value: ir.Value) -> Any:
                if isinstance(kind, types.Literal):
                    return kind.literal_value
                return emit.array(kind, value) if isinstance(kind, types.Array) else value

            result = lower(emit, *(operand(kind, value) for kind, value in zip(kinds, values, strict=True)))
            return context.get_dummy_value() if result is None else result

        return results[meaning.__annotations__["return"]](*kinds), generate

    names = ["typing", *inspect.signature(meaning).parameters]
    define.__name__ = meaning.__name__
    define.__signature__ = inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    return define


def _emitted(lower: Callable) -> Callable:
    """Decorate the NumPy meaning of an operation: on a device, calls become what ``lower(emit, ...)`` emits."""

    def decorate(meaning: Callable) -> Callable:
        OPERATIONS[meaning.__name__] = meaning, lower
        if device.cuda is None or device.SIMULATED:
            return meaning
        return device.intrinsic(definition(meaning, lower))

    return decorate


def _emit_quotient(emit, count, size) -> ir.Value:
    short = [emit.builder.trunc(emit.long(value), INT) for value in (count, size)]
    return emit.builder.zext(emit.builder.udiv(*short), LONG)


@_emitted(_emit_quotient)
def quotient(count, size) -> int:
    """``count // size`` of numbers from 0 to 2^32: a division of 64 bits takes four times as long."""
    return count // size


def _emit_load(emit, x, index) -> ir.Value:
    return x.load(index)[0]


@_emitted(_emit_load)
def load(x, index) -> float:
    """``x[index]``, as float32."""
    return np.float32(_memory(x)[index])


def _emit_store(emit, x, index, value) -> None:
    x.store(index, [value])


@_emitted(_emit_store)
def store(x, index, value) -> None:
    """``x[index] = value``."""
    _memory(x)[index] = value


def _emit_exp(emit, x) -> ir.Value:
    return emit.exp(x)


@_emitted(_emit_exp)
def exp(x) -> float:
    """``e^x`` within some units in the last place."""
    with np.errstate(over="ignore"):
        return np.exp(np.float32(x))


def _emit_read(
    emit, values, x, index, rows, row_step, row, row_limit, count, step, first, advance, limit, lanes
) -> None:
    for r in range(rows):
        start, present = emit.plus(index, r, row_step), emit.within(emit.plus(row, r, 1), row_limit)
        for t in range(count):
            inside = emit.both(present, emit.within(emit.plus(first, t * advance, 1), limit))
            place, at = emit.plus(start, t, step), (r * count + t) * lanes
            if inside is True:
                loaded = x.load(place, lanes)
            elif inside is False:
                loaded = [emit.number(0)] * lanes
            elif x.shared:  # the load itself is unconditional, so that many can be under way
                inner = x.load(emit.builder.select(inside, emit.long(place), emit.long(0)), lanes)
                loaded = [emit.builder.select(inside, value, emit.number(0)) for value in inner]
            else:
                loaded = x.load_where(inside, place, lanes)
            for v, value in enumerate(loaded):
                values.store(at + v, [value])


@_emitted(_emit_read)
def read(values, x, index, rows, row_step, row, row_limit, count, step, first, advance, limit, lanes) -> None:
    """Fill ``values`` (rows, count, lanes) from memory, with zeros for what is outside.

    Element (r, t, v) is ``x[index + r * row_step + t * step + v]`` if ``0 <= row + r < row_limit`` and
    ``0 <= first + t * advance < limit``.
    """
    values, x, index = _memory(values), _memory(x), int(index)
    for r in range(rows):
        for t in range(count):
            at, place = (r * count + t) * lanes, index + r * row_step + t * step
            if 0 <= row + r < row_limit and 0 <= first + t * advance < limit:
                assert place >= 0, "an index before the array"
                values[at : at + lanes] = x[place : place + lanes]
            else:
                values[at : at + lanes] = 0


def _emit_write(
    emit, x, index, rows, row_step, row, row_limit, count, step, lane_step, first, advance, limit, values, lanes
) -> None:
    for r in range(rows):
        start, present = emit.plus(index, r, row_step), emit.within(emit.plus(row, r, 1), row_limit)
        for t in range(count):
            inside = emit.both(present, emit.within(emit.plus(first, t * advance, 1), limit))
            at, place = (r * count + t) * lanes, emit.plus(start, t, step)
            if inside is False:
                continue
            with nullcontext() if inside is True else emit.builder.if_then(inside):
                loaded = [values.load(at + v)[0] for v in range(lanes)]
                if isinstance(lane_step, int) and lane_step == 1:
                    x.store(place, loaded)
                else:
                    for v, value in enumerate(loaded):
                        x.store(emit.plus(place, v, lane_step), [value])


@_emitted(_emit_write)
def write(
    x, index, rows, row_step, row, row_limit, count, step, lane_step, first, advance, limit, values, lanes
) -> None:
    """The reverse of :func:`read`: nothing is written outside; lanes are ``lane_step`` apart."""
    values, x, index = _memory(values), _memory(x), int(index)
    for r in range(rows):
        for t in range(count):
            at, place = (r * count + t) * lanes, index + r * row_step + t * step
            if 0 <= row + r < row_limit and 0 <= first + t * advance < limit:
                assert place >= 0, "an index before the array"
                x[place : place + (lanes - 1) * lane_step + 1 : lane_step] = values[at : at + lanes]


def _emit_fill(emit, values, count, source, period) -> None:
    for i in range(count):
        values.store(i, source.load(i % period))


@_emitted(_emit_fill)
def fill(values, count, source, period) -> None:
    """``values[i] = source[i % period]``."""
    values[:count] = np.tile(source[:period], count // period)


def _emit_zero(emit, values, count) -> None:
    for i in range(count):
        values.store(i, [ir.Constant(FLOAT, 0.0)])


@_emitted(_emit_zero)
def zero(values, count) -> None:
    """``values[:count] = 0``."""
    values[:count] = 0


def _emit_add(emit, values, other, count) -> None:
    for i in range(count):
        values.store(i, [emit.builder.fadd(values.load(i)[0], other.load(i)[0])])


@_emitted(_emit_add)
def add(values, other, count) -> None:
    """``values += other``."""
    values[:count] += other[:count]


def _emit_scale(emit, values, factors, count, period) -> None:
    for i in range(count):
        values.store(i, [emit.builder.fmul(values.load(i)[0], factors.load(i % period)[0])])


@_emitted(_emit_scale)
def scale(values, factors, count, period) -> None:
    """``values[i] *= factors[i % period]``."""
    values[:count] *= np.tile(factors[:period], count // period)


def _emit_rectify(emit, values, slopes, count, period) -> None:
    for i in range(count):
        x, slope = values.load(i)[0], slopes.load(i % period)[0]
        positive = emit.builder.fcmp_ordered(">", x, emit.number(0))
        values.store(i, [emit.builder.select(positive, x, emit.builder.fmul(x, slope))])


@_emitted(_emit_rectify)
def rectify(values, slopes, count, period) -> None:
    """``values[i] *= slopes[i % period]`` where they are not positive."""
    x = values[:count]
    with np.errstate(invalid="ignore"):
        x[:] = np.where(x > 0, x, x * np.tile(slopes[:period], count // period))


def _emit_apply_elu(emit, values, factors, count, period) -> None:
    for i in range(count):
        x, factor = values.load(i)[0], factors.load(i % period)[0]
        positive = emit.builder.fcmp_ordered(">", x, emit.number(0))
        values.store(i, [emit.builder.select(positive, x, emit.builder.fmul(emit.expm1(x), factor))])


@_emitted(_emit_apply_elu)
def apply_elu(values, factors, count, period) -> None:
    """``values[i] = (e^values[i] - 1) * factors[i % period]`` where they are not positive."""
    x = values[:count]
    x[:] = np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * np.tile(factors[:period], count // period))


def _emit_apply_tanh(emit, values, count) -> None:
    builder = emit.builder
    for i in range(count):
        x = values.load(i)[0]
        negative = builder.fcmp_ordered("<", x, emit.number(0))
        size = builder.select(negative, x, emit.negative(x))  # -|x|
        less = emit.expm1(builder.fmul(size, emit.number(2)))
        below = builder.fdiv(less, builder.fadd(less, emit.number(2)))
        values.store(i, [builder.select(negative, below, emit.negative(below))])


@_emitted(_emit_apply_tanh)
def apply_tanh(values, count) -> None:
    """The hyperbolic tangent of every value, by ``e^(-2|x|) - 1``."""
    values[:count] = np.tanh(values[:count])


def _emit_take_larger(emit, values, other, count) -> None:
    builder = emit.builder
    for i in range(count):
        mine, theirs = values.load(i)[0], other.load(i)[0]
        larger = builder.fcmp_ordered(">", theirs, mine)
        no_number = builder.fcmp_unordered("uno", theirs, theirs)
        values.store(i, [builder.select(builder.or_(larger, no_number), theirs, mine)])


@_emitted(_emit_take_larger)
def take_larger(values, other, count) -> None:
    """``values = max(values, other)``. A NaN is taken in, and stays."""
    values[:count] = np.maximum(values[:count], other[:count])


def _emit_normalise(emit, values, weight, bias, mean, variance, eps, count) -> None:
    builder, root = emit.builder, emit.builder.module.declare_intrinsic("llvm.sqrt", [FLOAT])
    for i in range(count):
        deviation = builder.call(root, [builder.fadd(variance.load(i)[0], eps)])
        distance = builder.fsub(values.load(i)[0], mean.load(i)[0])
        factor = builder.fdiv(weight.load(i)[0], deviation)
        values.store(i, [emit.fma(distance, factor, bias.load(i)[0])])


@_emitted(_emit_normalise)
def normalise(values, weight, bias, mean, variance, eps, count) -> None:
    """``values = (values - mean) * weight / sqrt(variance + eps) + bias``."""
    with np.errstate(invalid="ignore"):
        values[:count] = (values - mean) * (weight / np.sqrt(variance + eps)) + bias


def _emit_blend(emit, values, other, weight, count) -> None:
    builder = emit.builder
    rest = builder.fsub(emit.number(1), weight)
    for i in range(count):
        part = builder.fmul(other.load(i)[0], weight)
        values.store(i, [emit.fma(values.load(i)[0], rest, part)])


@_emitted(_emit_blend)
def blend(values, other, weight, count) -> None:
    """``values = values * (1 - weight) + other * weight``."""
    with np.errstate(invalid="ignore"):
        values[:count] = values[:count] * (np.float32(1) - weight) + other[:count] * weight


def _emit_mask(emit, values, at, count, inside) -> None:
    for i in range(at, at + count):
        values.store(i, [emit.builder.select(inside, values.load(i)[0], emit.number(0))])


@_emitted(_emit_mask)
def mask(values, at, count, inside) -> None:
    """Make ``values[at : at + count]`` zero unless ``inside``."""
    if not inside:
        values[at : at + count] = 0


def _emit_slide(emit, sums, at, row, weights, taps, outputs, stride, dilation, lanes) -> None:
    for j in range(taps):
        for v in range(lanes):
            weight = weights.load(j * lanes + v)[0]
            for t in range(outputs):
                place = at + t * lanes + v
                x = row.load((t * stride + j * dilation) * lanes + v)[0]
                sums.store(place, [emit.fma(x, weight, sums.load(place)[0])])


@_emitted(_emit_slide)
def slide(sums, at, row, weights, taps, outputs, stride, dilation, lanes) -> None:
    """Slide one kernel row over one image row.

    ``sums[at:]`` (outputs, lanes) ``+= row[t * stride + j * dilation] * weights[j]`` summed over the taps j; ``row``
    (columns, lanes), ``weights`` (taps, lanes).
    """
    sums = sums[at : at + outputs * lanes].reshape(outputs, lanes)
    row = row.reshape(-1, lanes)
    for j in range(taps):
        start = j * dilation
        sums += row[start : start + (outputs - 1) * stride + 1 : stride] * weights[j * lanes : (j + 1) * lanes]


def _emit_multiply(emit, sums, a, a_index, a_step, b, b_index, b_step, b_gap, depth, rows, columns, lanes) -> None:
    wide = next(width for width in (4, 2, 1) if rows % width == 0)
    for k in range(depth):
        left = [x for r in range(0, rows, wide) for x in a.load(emit.plus(a_index, 1, k * a_step + r), wide)]
        right = [
            x for t in range(columns // lanes) for x in b.load(emit.plus(b_index, 1, k * b_step + t * b_gap), lanes)
        ]
        for r, x in enumerate(left):
            for c, y in enumerate(right):
                sums.store(r * columns + c, [emit.fma(x, y, sums.load(r * columns + c)[0])])


@_emitted(_emit_multiply)
def multiply(sums, a, a_index, a_step, b, b_index, b_step, b_gap, depth, rows, columns, lanes) -> None:
    """``sums`` (rows, columns) ``+= a.T @ b`` of tiles in shared memory.

    Row k of ``a`` is the ``rows`` elements from ``a_index + k * a_step`` on; row k of ``b`` is pieces of ``lanes``
    elements, ``b_gap`` apart, from ``b_index + k * b_step`` on.
    """
    a, b, sums = _memory(a), _memory(b), sums[: rows * columns].reshape(rows, columns)
    pieces = (np.arange(columns // lanes)[:, None] * b_gap + np.arange(lanes)).ravel()
    for k in range(depth):
        start = a_index + k * a_step
        sums += a[start : start + rows, None] * b[b_index + k * b_step + pieces]


def _emit_multiply_outer(emit, sums, a, b, rows, columns) -> None:
    for r in range(rows):
        for c in range(columns):
            place = r * columns + c
            sums.store(place, [emit.fma(a.load(r)[0], b.load(c)[0], sums.load(place)[0])])


@_emitted(_emit_multiply_outer)
def multiply_outer(sums, a, b, rows, columns) -> None:
    """``sums[r, c] += a[r] * b[c]``."""
    sums[: rows * columns] += np.outer(a[:rows], b[:columns]).ravel()


def _emit_activate(emit, values, count, activation) -> None:
    builder, number = emit.builder, emit.number

    def sigmoid(x: ir.Value) -> ir.Value:
        return emit.approximate("rcp", builder.fadd(emit.exp(emit.negative(x)), number(1)))

    def gate(x: ir.Value) -> ir.Value:
        return emit.clamp(builder.fadd(x, number(3)), 0, 6)

    functions = {
        "none": None,
        "relu": lambda x: emit.clamp(x, 0, None),
        "relu6": lambda x: emit.clamp(x, 0, 6),
        "hard_swish": lambda x: builder.fmul(builder.fmul(x, gate(x)), number(1 / 6)),
        "swish": lambda x: builder.fmul(x, sigmoid(x)),
        "sigmoid": sigmoid,
        "hard_sigmoid": lambda x: builder.fmul(gate(x), number(1 / 6)),
    }
    function = functions[checks.ACTIVATIONS[activation]]
    for i in range(count if function else 0):
        values.store(i, [function(values.load(i)[0])])


@_emitted(_emit_activate)
def activate(values, count, activation) -> None:
    """Apply the activation of this number in :data:`checks.ACTIVATIONS`. A NaN stays one."""
    x = values[:count]
    one, six = np.float32(1), np.float32(6)
    with np.errstate(over="ignore", invalid="ignore"):
        name = checks.ACTIVATIONS[activation]
        if name == "relu":
            x[:] = np.maximum(x, 0)
        elif name == "relu6":
            x[:] = np.clip(x, 0, six)
        elif name in ("swish", "sigmoid"):
            gate = one / (one + np.exp(-x))
            x[:] = gate if name == "sigmoid" else x * gate
        elif name in ("hard_swish", "hard_sigmoid"):
            gate = np.clip(x + np.float32(3), 0, six)
            x[:] = gate / six if name == "hard_sigmoid" else x * gate / six
        elif name != "none":
            raise NotImplementedError(name)
