"""Vectors for kernels: a vocabulary in which they read like their algorithm, written down as LLVM IR.

Numba's compiler finds neither register tiles nor wide vectors by itself, so the fastest kernels are written in
a small vocabulary of their own. A kernel is a Python function that is run once, to write its machine code
down: Python's loops are unrolled, :meth:`Code.loop` is a loop of the machine, and values are

=============  ===========================================================================================
``Vector``     ``Target.lanes`` float32 values in one register, or fewer where so told: ``a + b``, ``a * b``,
               ``a.fma(x, y)`` (a + x*y, rounded once where the CPU can), ``clamp``, ``maximum``, ``nearest``,
               ``across`` all lanes
``Integers``   as many 32-bit integers in one register, each perhaps two of 16 bits or four bytes: ``a + b``,
               ``a.dot4(x, w)`` (a + x0*w0 + x1*w1 + x2*w2 + x3*w3 of unsigned and signed bytes), ``to_float``
``Integer``    a 64-bit integer: ``+ - * // %``, comparisons, ``minimum``
``Pointer``    an address: ``p + bytes``, ``p.vector(offset)``, ``p.splat(offset)``, ``p.store(vector, offset)``,
               ``p.prefetch(offset)``; ``p.integers``, ``p.splat_integers``, ``p.store_bytes``
=============  ===========================================================================================

    def axpy(code, x, y, count):                  # y += 2 x
        two = code.splat(2.0)
        def step(i):
            at = i * code.target.bytes
            (y + at).store((y + at).vector().fma(two, (x + at).vector()))
        code.loop(count, step)

`library.Library` compiles a set of kernels with Numba's code generator (llvmlite) and gives their addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager

from llvmlite import ir

from npmobilenet.kernels.vector import lowering
from npmobilenet.kernels.vector.lowering import F32, I8, I16, I32, I64
from npmobilenet.kernels.vector.target import Target

ADDRESS = ir.PointerType()
MANTISSA_BITS = 23  # of a float32
PREFETCH = "llvm.prefetch.p0"


class Integer:
    """A 64-bit integer of the machine."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code, self.value = code, value

    def _with(self, other: Integer | int, name: str) -> Integer:
        return Integer(self.code, getattr(self.code.builder, name)(self.value, self.code.integer(other).value))

    def __add__(self, other: Integer | int) -> Integer:
        return self._with(other, "add")

    def __sub__(self, other: Integer | int) -> Integer:
        return self._with(other, "sub")

    def __mul__(self, other: Integer | int) -> Integer:
        return self._with(other, "mul")

    def __rsub__(self, other: Integer | int) -> Integer:
        return self.code.integer(other) - self

    def __floordiv__(self, other: Integer | int) -> Integer:
        """Division of values that are not negative."""
        return self._with(other, "udiv")

    def __mod__(self, other: Integer | int) -> Integer:
        """Remainder of values that are not negative."""
        return self._with(other, "urem")

    __radd__, __rmul__ = __add__, __mul__

    def _compare(self, other: Integer | int, how: str) -> ir.Value:
        return self.code.builder.icmp_signed(how, self.value, self.code.integer(other).value)

    def __lt__(self, other: Integer | int) -> ir.Value:
        return self._compare(other, "<")

    def __le__(self, other: Integer | int) -> ir.Value:
        return self._compare(other, "<=")

    def __gt__(self, other: Integer | int) -> ir.Value:
        return self._compare(other, ">")

    def __ge__(self, other: Integer | int) -> ir.Value:
        return self._compare(other, ">=")

    def equals(self, other: Integer | int) -> ir.Value:
        """Whether both are the same."""
        return self._compare(other, "==")

    def minimum(self, other: Integer | int) -> Integer:
        """The smaller of both."""
        other = self.code.integer(other)
        return Integer(self.code, self.code.builder.select(self < other, self.value, other.value))

    def maximum(self, other: Integer | int) -> Integer:
        """The larger of both."""
        other = self.code.integer(other)
        return Integer(self.code, self.code.builder.select(self > other, self.value, other.value))

    def pointer(self) -> Pointer:
        """The address this integer is."""
        return Pointer(self.code, self.code.builder.inttoptr(self.value, ADDRESS))


class Pointer:
    """An address; offsets are in bytes."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code, self.value = code, value

    def __add__(self, offset: Integer | int) -> Pointer:
        if isinstance(offset, int) and offset == 0:
            return self
        builder = self.code.builder
        return Pointer(self.code, builder.gep(self.value, [self.code.integer(offset).value], source_etype=I8))

    def __sub__(self, offset: Integer) -> Pointer:
        return self + (0 - offset)

    def _load(self, kind: ir.Type, offset: Integer | int, align: int) -> ir.Value:
        value = self.code.builder.load((self + offset).value, typ=kind)
        value.align = align
        return value

    def vector(self, offset: Integer | int = 0, lanes: int = 0) -> Vector:
        """The vector that stands there (any alignment of 4 bytes)."""
        return Vector(self.code, self._load(self.code.vector_of(lanes), offset, 4))

    def splat(self, offset: Integer | int = 0, lanes: int = 0) -> Vector:
        """One float32, in every lane."""
        return self.code.splat(self._load(F32, offset, 4), lanes)

    def address(self) -> Integer:
        """The address as an integer."""
        return Integer(self.code, self.code.builder.ptrtoint(self.value, I64))

    def is_null(self) -> ir.Value:
        """Whether it is the address 0, which stands for nothing."""
        return self.address().equals(0)

    def integer(self, offset: Integer | int = 0) -> Integer:
        """The 64-bit integer that stands there."""
        return Integer(self.code, self._load(I64, offset, 8))

    def pointer(self, offset: Integer | int = 0) -> Pointer:
        """The address that stands there."""
        return self.integer(offset).pointer()

    def prefetch(self, offset: Integer | int = 0, level: int = 1) -> None:
        """Ask for the cache line that the address lies in, to a cache of this level; nothing need be there."""
        module, arguments = self.code.builder.module, [ADDRESS, I32, I32, I32]
        function = module.globals.get(PREFETCH) or ir.Function(
            module, ir.FunctionType(ir.VoidType(), arguments), PREFETCH
        )
        read, locality, data = I32(0), I32(4 - level), I32(1)
        self.code.builder.call(function, [(self + offset).value, read, locality, data])

    def store_first(self, vector: Vector, offset: Integer | int = 0) -> None:
        """Write what is in a vector's first lane there: one float32."""
        builder = self.code.builder
        builder.store(builder.extract_element(vector.value, I32(0)), (self + offset).value).align = 4

    def copy(self, source: Pointer) -> None:
        """Write the one float32 there that stands elsewhere."""
        self.code.builder.store(source._load(F32, 0, 4), self.value).align = 4

    def store_integer(self, value: Integer, offset: Integer | int = 0) -> None:
        """Write a 64-bit integer there."""
        self.code.builder.store(value.value, (self + offset).value).align = 8

    def integers(self, offset: Integer | int = 0, lanes: int = 0) -> Integers:
        """The register of integers that stands there (any alignment), or fewer of them."""
        return Integers(self.code, self._load(ir.VectorType(I32, lanes or self.code.target.lanes), offset, 1))

    def splat_integers(self, offset: Integer | int = 0, lanes: int = 0) -> Integers:
        """Four bytes, in every lane (any alignment), or in fewer lanes."""
        return self.code.splat_integers(self._load(I32, offset, 1), lanes)

    def widened_bytes(self, offset: Integer | int = 0) -> Integers:
        """As many bytes as a register has lanes, each as an integer."""
        value = self._load(ir.VectorType(I8, self.code.target.lanes), offset, 1)
        return Integers(self.code, self.code.builder.zext(value, self.code.integers_type))

    def transposed_bytes(self, distances: Sequence[Integer | int]) -> Integers:
        """From groups of `Target.lanes` bytes the first of each in the first lane, and so on.

        There are up to four groups, at such distances in bytes from here; the missing ones are read as the first.
        """
        lanes, builder = self.code.target.lanes, self.code.builder
        kind = ir.VectorType(I8, lanes)
        groups = [self._load(kind, distance, 1) for distance in distances]
        return self.code.transposed(lowering.joined(builder, groups + groups[:1] * (4 - len(groups))))

    def store(self, vector: Vector | Integers, offset: Integer | int = 0) -> None:
        """Write a vector there."""
        self.code.builder.store(vector.value, (self + offset).value).align = 4

    def store_bytes(self, vectors: Sequence[Vector], offset: Integer | int = 0, bounded: bool = False) -> None:
        """Write vectors there as bytes, one after the other: the nearest integers, half to even, from 0 to 255.

        Four vectors make a register. What is no number becomes 0. Of values that are known to be below 2**31
        (``bounded``) there is a shorter way.
        """
        code = self.code
        for at in range(0, len(vectors), 4):
            some = [vector.value for vector in vectors[at : at + 4]]
            place = self + offset + at * code.target.lanes
            value = lowering.saturated_bytes(code.builder, code.target, some, bounded)
            code.builder.store(value, place.value).align = 1

    def fill_bytes(self, source: Pointer | None = None) -> None:
        """Write a byte for each lane there: those that stand at an address, or zeros."""
        kind = ir.VectorType(I8, self.code.target.lanes)
        value = lowering.constant(kind, 0) if source is None else source._load(kind, 0, 1)
        self.code.builder.store(value, self.value).align = 1

    def store_lanes(self, vector: Vector, count: int, offset: Integer | int = 0) -> None:
        """Write the first ``count`` lanes of a vector there."""
        code = self.code
        mask = ir.Constant(ir.VectorType(I32, count), [I32(i) for i in range(count)])
        value = code.builder.shuffle_vector(vector.value, vector.value, mask)
        code.builder.store(value, (self + offset).value).align = 4

    def store_halves(self, integers: Integers, count: int) -> None:
        """Write the first ``count`` of integers there in 16 bits each."""
        code = self.code
        mask = ir.Constant(ir.VectorType(I32, count), [I32(i) for i in range(count)])
        some = code.builder.shuffle_vector(integers.value, integers.value, mask)
        code.builder.store(code.builder.trunc(some, ir.VectorType(I16, count)), self.value).align = 2


class Vector:
    """One register of float32 values."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code, self.value = code, value

    @property
    def lanes(self) -> int:
        """How many values it holds."""
        return self.value.type.count

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fadd(self.value, other.value))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fmul(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fsub(self.value, other.value))

    def __neg__(self) -> Vector:
        return Vector(self.code, self.code.builder.fneg(self.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.builder.fdiv(self.value, other.value))

    def fma(self, x: Vector, y: Vector) -> Vector:
        """``self + x * y``, rounded once where the CPU has such an instruction, twice elsewhere."""
        if not self.code.target.has_fma:
            return self + x * y
        function = self.code.intrinsic("llvm.fma", 3, self.lanes)
        return Vector(self.code, self.code.builder.call(function, [x.value, y.value, self.value]))

    def clamp(self, low: Vector, high: Vector) -> Vector:
        """Between ``low`` and ``high``; NaN stays NaN."""
        # `high < x ? high : x` keeps x where x is NaN, and is one instruction (minps) in just this order.
        return self.raised_to(low)._select(">", high, high)

    def raised_to(self, low: Vector) -> Vector:
        """Not below ``low``; NaN stays NaN."""
        return self._select("<", low, low)

    def whole(self) -> Vector:
        """The same values, and zeros in the lanes that this one lacks."""
        return Vector(self.code, lowering.lengthened(self.code.builder, self.value, self.code.target.lanes))

    def maximum(self, other: Vector) -> Vector:
        """The larger of both; NaN where either is."""
        builder = self.code.builder
        larger = other._select("<", self, self)  # one instruction, `other` where either is NaN
        unordered = builder.fcmp_unordered("uno", self.value, self.value)
        return Vector(self.code, builder.select(unordered, self.value, larger.value))

    def where_positive(self, otherwise: Vector) -> Vector:
        """Itself in the lanes that are greater than 0, the other vector in the rest, and where it is NaN."""
        builder = self.code.builder
        positive = builder.fcmp_ordered(">", self.value, self.code.splat(0.0).value)
        return Vector(self.code, builder.select(positive, self.value, otherwise.value))

    def masked(self, mask: Vector) -> Vector:
        """The bits that are set in the mask, too: 0 in lanes where none is, whatever stood there."""
        builder, integers = self.code.builder, self.code.integers_type
        both = builder.and_(builder.bitcast(self.value, integers), builder.bitcast(mask.value, integers))
        return Vector(self.code, builder.bitcast(both, self.code.vector_of()))

    def across(self, combine: Callable[[Vector, Vector], Vector]) -> Vector:
        """What all lanes give together, halves with halves, in every lane."""
        lanes, result = self.code.target.lanes, self
        distance = lanes // 2
        while distance:
            order = ir.Constant(ir.VectorType(I32, lanes), [I32(lane ^ distance) for lane in range(lanes)])
            swapped = self.code.builder.shuffle_vector(result.value, result.value, order)
            result = combine(result, Vector(self.code, swapped))
            distance //= 2
        return result

    def add_to_exponent(self, low_bits: Vector) -> Vector:
        """``self * 2**n``, where n is the integer in the low bits of the other vector's mantissas."""
        builder = self.code.builder
        integers = self.code.integers_type
        to_exponent = ir.Constant(integers, [I32(MANTISSA_BITS)] * self.code.target.lanes)
        shifted = builder.shl(builder.bitcast(low_bits.value, integers), to_exponent)
        total = builder.add(builder.bitcast(self.value, integers), shifted)
        return Vector(self.code, builder.bitcast(total, self.code.vector_of()))

    def fused(self, x: Vector, y: Vector) -> Vector:
        """``self + x * y``, rounded once on every CPU."""
        return Vector(self.code, lowering.fused(self.code.builder, self.code.target, x.value, y.value, self.value))

    def at_least(self, other: Vector) -> Vector:
        """The larger of both; ``other`` where this is no number."""
        larger = self.code.builder.fcmp_ordered(">", self.value, other.value)
        return Vector(self.code, self.code.builder.select(larger, self.value, other.value))

    def at_most(self, other: Vector) -> Vector:
        """The smaller of both; ``other`` where this is no number."""
        smaller = self.code.builder.fcmp_ordered("<", self.value, other.value)
        return Vector(self.code, self.code.builder.select(smaller, self.value, other.value))

    def magnitude_bits(self) -> Integers:
        """The bits without the sign: as integers they are ordered as magnitudes are, NaN above all numbers."""
        builder, integers = self.code.builder, self.code.integers_type
        bits = builder.and_(builder.bitcast(self.value, integers), lowering.constant(integers, 0x7FFFFFFF))
        return Integers(self.code, bits)

    def nearest(self) -> Integers:
        """The nearest integers, half to even, of values below 2**22."""
        return Integers(self.code, lowering.nearest(self.code.builder, self.code.target, self.value))

    def _select(self, how: str, bound: Vector, otherwise: Vector) -> Vector:
        builder = self.code.builder
        outside = builder.fcmp_ordered(how, self.value, bound.value)
        return Vector(self.code, builder.select(outside, otherwise.value, self.value))


class Integers:
    """One register of 32-bit integers, each of which may be two of 16 bits, or four bytes."""

    def __init__(self, code: Code, value: ir.Value) -> None:
        self.code, self.value = code, value

    def __add__(self, other: Integers) -> Integers:
        return Integers(self.code, self.code.builder.add(self.value, other.value))

    def __sub__(self, other: Integers) -> Integers:
        return Integers(self.code, self.code.builder.sub(self.value, other.value))

    def __and__(self, other: Integers) -> Integers:
        return Integers(self.code, self.code.builder.and_(self.value, other.value))

    def __lshift__(self, bits: int) -> Integers:
        return Integers(self.code, self.code.builder.shl(self.value, lowering.constant(self.value.type, bits)))

    def dot4(self, unsigned: Integers, signed: Integers, small: bool = False) -> Integers:
        """``self`` and the products of four unsigned bytes with four signed ones: exact, modulo 2**32.

        ``small`` says that the signed ones are from -64 to 64: some CPUs have a shorter way then.
        """
        values = (self.value, unsigned.value, signed.value)
        return Integers(self.code, lowering.dot4(self.code.builder, self.code.target, *values, small))

    def whole(self) -> Integers:
        """The same integers, and zeros in the lanes that this one lacks."""
        return Integers(self.code, lowering.lengthened(self.code.builder, self.value, self.code.target.lanes))

    def even_and_odd(self) -> tuple[Integers, Integers]:
        """Of four unsigned bytes in each, two as 16-bit integers, the first and the third, and the other two."""
        return tuple(Integers(self.code, value) for value in lowering.even_and_odd(self.code.builder, self.value))

    def dot2(self, a: Integers, b: Integers) -> Integers:
        """``self`` and the products of two signed 16-bit integers with two others: exact, modulo 2**32."""
        return Integers(self.code, lowering.dot2(self.code.builder, self.code.target, self.value, a.value, b.value))

    def paired(self, other: Integers) -> Integers:
        """Of integers that 16 bits hold, two in each: this one's, and above it the other's."""
        low = self & self.code.splat_integers(0xFFFF)
        return Integers(self.code, self.code.builder.or_(low.value, (other << 16).value))

    def maximum(self, other: Integers) -> Integers:
        """The larger of both."""
        builder = self.code.builder
        return Integers(
            self.code, builder.select(builder.icmp_signed(">", self.value, other.value), self.value, other.value)
        )

    def first(self) -> Integer:
        """What is in the first lane."""
        builder = self.code.builder
        return Integer(self.code, builder.sext(builder.extract_element(self.value, I32(0)), I64))

    def as_float(self) -> Vector:
        """The float32 values that have these bits."""
        return Vector(self.code, self.code.builder.bitcast(self.value, self.code.vector_of()))

    def to_float(self) -> Vector:
        """The nearest float32 values, half to even."""
        return Vector(self.code, self.code.builder.sitofp(self.value, self.code.vector_of()))


class Code:
    """Writes one kernel down, instruction by instruction."""

    def __init__(self, target: Target, builder: ir.IRBuilder, functions: dict[str, ir.Function]) -> None:
        self.target, self.builder = target, builder
        self._functions = functions
        self._local: dict[int, ir.Value] = {}
        self.integers_type = ir.VectorType(I32, target.lanes)

    def integer(self, value: Integer | int) -> Integer:
        """A constant, or what is an integer already."""
        return value if isinstance(value, Integer) else Integer(self, ir.Constant(I64, value))

    def local(self, vectors: int) -> Pointer:
        """Memory of the function's own, for so many vectors; what is written there next time takes its place."""
        if vectors not in self._local:
            with self.builder.goto_entry_block():
                self._local[vectors] = self.builder.alloca(self.vector_of(), vectors)
        return Pointer(self, self._local[vectors])

    def vector_of(self, lanes: int = 0) -> ir.VectorType:
        """LLVM's type of a vector, a whole one unless told."""
        return ir.VectorType(F32, lanes or self.target.lanes)

    def splat(self, value: ir.Value | float, lanes: int = 0) -> Vector:
        """One value in every lane."""
        kind = self.vector_of(lanes)
        if not isinstance(value, ir.Value):
            return Vector(self, ir.Constant(kind, [F32(value)] * kind.count))
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
        mask = ir.Constant(ir.VectorType(I32, kind.count), [I32(0)] * kind.count)
        return Vector(self, self.builder.shuffle_vector(one, one, mask))

    def splat_integers(self, value: ir.Value | int, lanes: int = 0) -> Integers:
        """One 32-bit integer in every lane, or in fewer lanes."""
        kind = ir.VectorType(I32, lanes or self.target.lanes)
        if not isinstance(value, ir.Value):
            return Integers(self, lowering.constant(kind, value))
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
        return Integers(self, self.builder.shuffle_vector(one, one, lowering.constant(kind, 0)))

    def transposed(self, register: Integers | ir.Value) -> Integers:
        """Of four groups of bytes, one for each lane, the first of each in the first lane, and so on."""
        lanes, value = self.target.lanes, register.value if isinstance(register, Integers) else register
        bytes_ = ir.VectorType(I8, 4 * lanes)
        value = self.builder.bitcast(value, bytes_)
        order = [lanes * group + lane for lane in range(lanes) for group in range(4)]
        mask = ir.Constant(ir.VectorType(I32, 4 * lanes), [I32(i) for i in order])
        value = self.builder.shuffle_vector(value, ir.Constant(bytes_, ir.Undefined), mask)
        return Integers(self, self.builder.bitcast(value, self.integers_type))

    def columns_of(self, rows: Sequence[Vector]) -> list[Vector]:
        """Of as many vectors as they have lanes: the first lane of each in one vector, and so on."""
        lanes, step, rows = self.target.lanes, 1, list(rows)
        while step < lanes:  # squares of 2 x 2, of these again 2 x 2
            upper = [lane if not lane & step else lanes + lane - step for lane in range(lanes)]
            masks = [ir.Constant(self.integers_type, [I32(i + shift) for i in upper]) for shift in (0, step)]
            for row in range(lanes):
                if not row & step:
                    pair = rows[row].value, rows[row + step].value
                    halves = [Vector(self, self.builder.shuffle_vector(*pair, mask)) for mask in masks]
                    rows[row], rows[row + step] = halves
            step *= 2
        return rows

    def lane_maxima(self, vectors: Sequence[Integers]) -> Integers:
        """Each vector's largest lane, in the lane of its number: of one vector, or of as many as there are lanes."""
        lanes, vectors, run = self.target.lanes, list(vectors), self.target.lanes // 2

        def halved(a: Integers, b: Integers, run: int) -> Integers:
            """The larger of neighbouring runs of lanes, those of ``a`` and of ``b`` in turn."""
            own = [lane + (lanes if lane & run else 0) for lane in range(lanes)]  # these stay in their lanes
            other = [lane - run + lanes if lane & run else lane + run for lane in range(lanes)]
            both = (ir.Constant(self.integers_type, [I32(lane) for lane in order]) for order in (own, other))
            first, second = (Integers(self, self.builder.shuffle_vector(a.value, b.value, mask)) for mask in both)
            return first.maximum(second)

        while run:
            half = max(1, len(vectors) // 2)  # a single one meets itself
            vectors = [halved(a, b, run) for a, b in zip(vectors[:half], vectors[-half:], strict=True)]
            run //= 2
        return vectors[0]

    def intrinsic(self, name: str, arity: int, lanes: int = 0) -> ir.Function:
        """Declare an operation of LLVM on vectors."""
        kind = self.vector_of(lanes)
        name = f"{name}.v{kind.count}f32"
        module = self.builder.module
        if name in module.globals:
            return module.globals[name]
        return ir.Function(module, ir.FunctionType(kind, [kind] * arity), name)

    def clock(self) -> Integer:
        """What a clock of the CPU says, which counts on evenly, when all that stands before has been done."""
        module, x86 = self.builder.module, self.target.triple.startswith(("x86_64", "amd64", "i386", "i686"))
        if x86:  # it reads the clock when it likes; nothing goes on before this
            name = "llvm.x86.sse2.lfence"
            self.builder.call(
                module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.VoidType(), []), name), []
            )
        name = "llvm.readcyclecounter" if x86 else "llvm.readsteadycounter"
        function = module.globals.get(name) or ir.Function(module, ir.FunctionType(I64, []), name)
        return Integer(self, self.builder.call(function, []))

    def call(self, function: str | Pointer, *arguments: Integer | Pointer | int) -> None:
        """Call another function of the library by its name, or any by its address."""
        values = [self.integer(a).value if isinstance(a, int) else a.value for a in arguments]
        if isinstance(function, Pointer):
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
            address = self.builder.ptrtoint(function.value, I64)
            self.builder.call(self.builder.inttoptr(address, kind.as_pointer()), values)
        else:
            self.builder.call(self._functions[function], values)

    def loop(
        self,
        stop: Integer | int,
        body: Callable[..., Sequence | None],
        carried: Sequence = (),
        *,
        start: Integer | int = 0,
        step: Integer | int = 1,
    ) -> list:
        """Run ``body(i, *carried)`` for i from ``start`` below ``stop``.

        ``carried`` are values (vectors, integers, pointers) that one trip hands to the next: the body takes
        them and returns their successors. Returns what the last trip left.
        """
        builder = self.builder
        start, stop, step = self.integer(start), self.integer(stop), self.integer(step)
        before = builder.block
        inside, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.cbranch(start < stop, inside, after)

        builder.position_at_end(inside)
        counter = builder.phi(I64)
        counter.add_incoming(start.value, before)
        phis = []
        for item in carried:
            phi = builder.phi(item.value.type)
            phi.add_incoming(item.value, before)
            phis.append(phi)
        results = list(body(Integer(self, counter), *_as(carried, phis)) or ())
        following = Integer(self, counter) + step
        end = builder.block
        builder.cbranch(following < stop, inside, after)
        counter.add_incoming(following.value, end)
        for phi, result in zip(phis, results, strict=True):
            phi.add_incoming(result.value, end)

        builder.position_at_end(after)
        final = []
        for item, result in zip(carried, results, strict=True):
            phi = builder.phi(item.value.type)
            phi.add_incoming(item.value, before)
            phi.add_incoming(result.value, end)
            final.append(phi)
        return _as(carried, final)

    @contextmanager
    def when(self, condition: ir.Value):
        """Do what follows only if the condition holds."""
        with self.builder.if_then(condition):
            yield

    def either(self, condition: ir.Value, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Do one of both: what a value is needed for in one only, it need not be kept for in the other."""
        with self.builder.if_else(condition) as (yes, no):
            with yes:
                then()
            with no:
                otherwise()

    def branch(self, condition: ir.Value, then: Callable[[], Sequence], otherwise: Sequence) -> list:
        """Return what ``then()`` computes if the condition holds, else the values ``otherwise``."""
        builder = self.builder
        before = builder.block
        inside, after = builder.append_basic_block("then"), builder.append_basic_block("after")
        builder.cbranch(condition, inside, after)
        builder.position_at_end(inside)
        results = list(then())
        end = builder.block
        builder.branch(after)
        builder.position_at_end(after)
        merged = []
        for result, other in zip(results, otherwise, strict=True):
            phi = builder.phi(other.value.type)
            phi.add_incoming(other.value, before)
            phi.add_incoming(result.value, end)
            merged.append(phi)
        return _as(otherwise, merged)

    def select(self, condition: ir.Value, yes, no):
        """One of two values of the same kind."""
        return type(yes)(self, self.builder.select(condition, yes.value, no.value))


def _as(kinds: Sequence, values: Sequence[ir.Value]) -> list:
    return [type(kind)(kind.code, value) for kind, value in zip(kinds, values, strict=True)]
