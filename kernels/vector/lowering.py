"""Operations of vectors that CPUs have in different words, or not at all: the same bits on all of them.

Each function writes one operation down for a target, on LLVM's values: vectors of `Target.lanes` float32 values or
32-bit integers. Where a register is wider than the CPU's integer instructions, it is computed in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llvmlite import ir

from npmobilenet.kernels.vector.target import Target

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, F64 = ir.FloatType(), ir.DoubleType()
BYTE = 0xFF
LARGEST_BYTE = 255.0
ROUNDER = 1.5 * 2**23  # added to a float32 below 2**22, it leaves the nearest integer in the low bits
ROUNDER_BITS = 0x4B400000

# LLVM's names of x86-64's instructions, by the bits of a register.
MADD = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}
NEAREST = {128: "sse2.cvtps2dq", 256: "avx.cvt.ps2dq.256", 512: "avx512.mask.cvtps2dq.512"}
MADD_BYTES = {256: "avx2.pmadd.ub.sw", 512: "avx512.pmaddubs.w.512"}
PACK_WORDS = {128: "sse2.packssdw.128", 256: "avx2.packssdw", 512: "avx512.packssdw.512"}
PACK_BYTES = {128: "sse2.packuswb.128", 256: "avx2.packuswb", 512: "avx512.packuswb.512"}


def constant(kind: ir.VectorType, value: float) -> ir.Constant:
    """One value in every lane."""
    return ir.Constant(kind, [kind.element(value)] * kind.count)


def _call(builder: ir.IRBuilder, name: str, kind: ir.Type, arguments: Sequence[ir.Value]) -> ir.Value:
    """Call an operation of LLVM, declared at its first use."""
    module, full = builder.module, f"llvm.{name}"
    if full not in module.globals:
        ir.Function(module, ir.FunctionType(kind, [argument.type for argument in arguments]), full)
    return builder.call(module.globals[full], arguments)


def _x86(builder: ir.IRBuilder, names: Mapping[int, str], kind: ir.VectorType, *arguments: ir.Value) -> ir.Value:
    bits = arguments[0].type.count * {I8: 8, I16: 16}.get(arguments[0].type.element, 32)
    return _call(builder, f"x86.{names[bits]}", kind, arguments)


def _slice(builder: ir.IRBuilder, value: ir.Value, start: int, count: int) -> ir.Value:
    mask = ir.Constant(ir.VectorType(I32, count), [I32(start + i) for i in range(count)])
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def lengthened(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A vector with zeros in the lanes that it lacks."""
    count = value.type.count
    if lanes == count:
        return value
    mask = ir.Constant(ir.VectorType(I32, lanes), [I32(min(lane, count)) for lane in range(lanes)])
    return builder.shuffle_vector(value, constant(value.type, 0), mask)


def joined(builder: ir.IRBuilder, values: Sequence[ir.Value]) -> ir.Value:
    """Vectors of one type, one after the other in one; their number is a power of two."""
    values = list(values)
    while len(values) > 1:
        count = 2 * values[0].type.count
        mask = ir.Constant(ir.VectorType(I32, count), [I32(i) for i in range(count)])
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [builder.shuffle_vector(a, b, mask) for a, b in pairs]
    return values[0]


def _in_parts(
    builder: ir.IRBuilder, target: Target, operation: Callable[..., ir.Value], *arguments: ir.Value
) -> ir.Value:
    """Compute vectors of 32-bit values in parts as wide as the CPU's integer instructions."""
    lanes, widest = arguments[0].type.count, target.integer_bits // 32
    if lanes <= widest:
        return operation(*arguments)
    starts = range(0, lanes, widest)
    parts = [operation(*(_slice(builder, each, start, widest) for each in arguments)) for start in starts]
    return joined(builder, parts)


def _halves(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The same register as 16-bit integers."""
    return builder.bitcast(value, ir.VectorType(I16, 2 * value.type.count))


def _bytes(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.bitcast(value, ir.VectorType(I8, 4 * value.type.count))


def _widened(builder: ir.IRBuilder, value: ir.Value, signed: bool) -> tuple[ir.Value, ir.Value]:
    """The even bytes and the odd ones, each as a 16-bit integer."""
    value = _halves(builder, value)
    eight = constant(value.type, 8)
    shift = builder.ashr if signed else builder.lshr
    even = builder.shl(value, eight) if signed else builder.and_(value, constant(value.type, BYTE))
    return shift(even, eight) if signed else even, shift(value, eight)


def even_and_odd(builder: ir.IRBuilder, value: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Of four unsigned bytes in each integer, two as 16-bit integers, and the other two."""
    return tuple(builder.bitcast(each, value.type) for each in _widened(builder, value, False))


def dot4(
    builder: ir.IRBuilder,
    target: Target,
    sums: ir.Value,
    unsigned: ir.Value,
    signed: ir.Value,
    small: bool = False,
) -> ir.Value:
    """To each sum, the products of four unsigned bytes with four signed ones: exact, modulo 2**32.

    ``small`` signed ones are from -64 to 64.
    """
    kind = target.dot

    def part(sums: ir.Value, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
        if kind == "vnni":
            return _call(builder, f"x86.avx512.vpdpbusd.{32 * sums.type.count}", sums.type, [sums, unsigned, signed])
        if kind == "usdot":
            return _neon_dot(builder, "usdot", sums, unsigned, signed)
        if kind == "sdot":  # x w = (x - 128) w + 2 (64 w), the second for all that meet these weights
            ones = constant(sums.type, 0x40404040)
            rest = _neon_dot(builder, "sdot", constant(sums.type, 0), ones, signed)
            shifted = builder.xor(unsigned, constant(sums.type, 0x80808080 - (1 << 32)))
            return _neon_dot(builder, "sdot", builder.add(sums, builder.add(rest, rest)), shifted, signed)
        if small and target.adds_pairs:
            words = ir.VectorType(I16, 2 * sums.type.count)
            pairs = _x86(builder, MADD_BYTES, words, _bytes(builder, unsigned), _bytes(builder, signed))
            return builder.add(sums, _products(builder, kind, sums.type, pairs, constant(words, 1)))
        if kind in ("madd", "saddlp"):
            pairs = zip(_widened(builder, unsigned, False), _widened(builder, signed, True), strict=True)
            for x, w in pairs:
                sums = builder.add(sums, _products(builder, kind, sums.type, x, w))
            return sums
        return _plain_dot(builder, sums, unsigned, signed, 8)

    return _in_parts(builder, target, part, sums, unsigned, signed)


def dot2(builder: ir.IRBuilder, target: Target, sums: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """To each sum, the products of two signed 16-bit integers with two others: exact, modulo 2**32."""

    def part(sums: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        if target.dot == "vnni":
            return _call(builder, f"x86.avx512.vpdpwssd.{32 * sums.type.count}", sums.type, [sums, a, b])
        if target.dot == "madd":
            halves = _halves(builder, a), _halves(builder, b)
            return builder.add(sums, _products(builder, "madd", sums.type, *halves))
        return _plain_dot(builder, sums, a, b, 16, True)

    return _in_parts(builder, target, part, sums, a, b)


def _neon_dot(builder: ir.IRBuilder, name: str, sums: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    arguments = [sums, _bytes(builder, a), _bytes(builder, b)]
    return _call(builder, f"aarch64.neon.{name}.v4i32.v16i8", sums.type, arguments)


def _products(builder: ir.IRBuilder, kind: str, sums: ir.VectorType, a: ir.Value, b: ir.Value) -> ir.Value:
    """The sums of neighbouring products of 16-bit integers; "saddlp" takes products that 16 bits hold."""
    if kind == "madd":
        return _x86(builder, MADD, sums, a, b)
    return _call(builder, "aarch64.neon.saddlp.v4i32.v8i16", sums, [builder.mul(a, b)])


def _plain_dot(
    builder: ir.IRBuilder, sums: ir.Value, a: ir.Value, b: ir.Value, bits: int, signed: bool = False
) -> ir.Value:
    """Products of the parts of 32-bit integers, so many bits each; those of ``b`` are signed."""

    def part(value: ir.Value, at: int, signed: bool) -> ir.Value:
        to_top, down = constant(value.type, 32 - bits - at), constant(value.type, 32 - bits)
        return (builder.ashr if signed else builder.lshr)(builder.shl(value, to_top), down)

    for at in range(0, 32, bits):
        sums = builder.add(sums, builder.mul(part(a, at, signed), part(b, at, True)))
    return sums


def nearest(builder: ir.IRBuilder, target: Target, x: ir.Value) -> ir.Value:
    """The nearest integers, half to even, of float32 values below 2**22."""

    def part(x: ir.Value) -> ir.Value:
        kind = ir.VectorType(I32, x.type.count)
        if target.dot in ("vnni", "madd"):
            wide = [constant(kind, 0), ir.Constant(I16, -1), I32(4)] if x.type.count == 16 else []
            return _call(builder, f"x86.{NEAREST[32 * x.type.count]}", kind, [x, *wide])
        if target.dot != "plain":
            return _call(builder, "aarch64.neon.fcvtns.v4i32.v4f32", kind, [x])
        shifted = builder.bitcast(builder.fadd(x, constant(x.type, ROUNDER)), kind)
        return builder.sub(shifted, constant(kind, ROUNDER_BITS))

    return _in_parts(builder, target, part, x)


def saturated_bytes(
    builder: ir.IRBuilder, target: Target, vectors: Sequence[ir.Value], bounded: bool = False
) -> ir.Value:
    """The nearest integers, half to even, of up to four vectors of float32: bytes from 0 to 255, NaN 0.

    ``bounded`` says that all are below 2**31: then packing saturates them, where the CPU has it.
    """
    high = constant(vectors[0].type, LARGEST_BYTE)
    low = constant(vectors[0].type, 0.0)
    packs = target.dot in ("vnni", "madd")  # with saturation: what is negative, or no integer, becomes 0
    values = []
    for x in vectors:
        x = x if packs else builder.select(builder.fcmp_ordered(">", x, low), x, low)
        if not (packs and bounded):
            x = builder.select(builder.fcmp_ordered("<", high, x), high, x)
        values.append(nearest(builder, target, x))
    if packs:
        return _packed(builder, target, values)
    while len(values) & (len(values) - 1):
        values.append(values[-1])
    whole = joined(builder, values)
    whole = builder.trunc(whole, ir.VectorType(I8, whole.type.count))
    return _slice(builder, whole, 0, len(vectors) * target.lanes)


def _packed(builder: ir.IRBuilder, target: Target, values: Sequence[ir.Value]) -> ir.Value:
    lanes, width = target.lanes, min(target.lanes, target.integer_bits // 32)
    parts = [_slice(builder, x, at, width) for x in values for at in range(0, lanes, width)]
    parts += parts[-1:] * (-len(parts) % 4)
    words, bytes_ = ir.VectorType(I16, 2 * width), ir.VectorType(I8, 4 * width)
    packed = []
    for at in range(0, len(parts), 4):
        pairs = [_x86(builder, PACK_WORDS, words, *parts[i : i + 2]) for i in (at, at + 2)]
        one = builder.bitcast(_x86(builder, PACK_BYTES, bytes_, *pairs), ir.VectorType(I32, width))
        order = [4 * j + i for i in range(4) for j in range(width // 4)]  # wide registers pack by 128 bits
        mask = ir.Constant(ir.VectorType(I32, width), [I32(i) for i in order])
        one = builder.shuffle_vector(one, ir.Constant(one.type, ir.Undefined), mask)
        packed.append(builder.bitcast(one, bytes_))
    while len(packed) & (len(packed) - 1):
        packed.append(packed[-1])
    return _slice(builder, joined(builder, packed), 0, len(values) * lanes)


def fused(builder: ir.IRBuilder, target: Target, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """``x * y + z`` of float32 values, rounded once on every CPU.

    Without the instruction it is computed in float64, where the product is exact. The sum is rounded to an odd last
    bit unless it is exact (Boldo and Melquiond 2008), so that rounding it again, to float32, is as rounding once.
    """
    kind = x.type
    if target.has_fma:
        return _call(builder, f"fma.v{kind.count}f32", kind, [x, y, z])
    wide, whole = ir.VectorType(F64, kind.count), ir.VectorType(I64, kind.count)
    x, y, z = (builder.fpext(value, wide) for value in (x, y, z))
    product = builder.fmul(x, y)
    total = builder.fadd(product, z)
    back = builder.fsub(total, product)
    error = builder.fadd(builder.fsub(product, builder.fsub(total, back)), builder.fsub(z, back))
    bits = builder.bitcast(total, whole)
    sign = constant(whole, 63)
    # One step in the bits of a float64 is one towards infinity where it is positive, else one away from it.
    up = builder.icmp_signed("==", builder.lshr(bits, sign), builder.lshr(builder.bitcast(error, whole), sign))
    moved = builder.add(bits, builder.select(up, constant(whole, 1), constant(whole, -1)))
    even = builder.icmp_signed("==", builder.and_(bits, constant(whole, 1)), constant(whole, 0))
    inexact = builder.fcmp_ordered("!=", error, constant(wide, 0.0))
    bits = builder.select(builder.and_(even, inexact), moved, bits)
    return builder.fptrunc(builder.bitcast(bits, wide), kind)
