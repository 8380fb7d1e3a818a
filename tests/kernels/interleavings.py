"""A small model checker: functions as they stand, on several threads, in every order of their steps.

The source of a module is rewritten so that each access to memory is a step: ``load(x)`` becomes ``yield ("load", x)``.
A scheduler chooses which thread takes the next one, and goes through all choices; from a state that was met before it
does not go on. A state is the memory and, of each thread, where it stands and what its variables hold.

Memory is a dictionary of words, and a step is seen by all threads at once. What a compiler or CPU may do to the order
of plain accesses between atomic ones is not looked at here.
"""

from __future__ import annotations

import ast
import dis
import inspect
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence, Set
from functools import cache
from itertools import pairwise
from types import CodeType, ModuleType
from typing import Any

Steps = Generator[tuple, Any, Any]
Memory = dict[Hashable, int]

ACCESSES = ("load", "store", "atomic_load", "atomic_store", "atomic_add", "atomic_replace", "pause", "yield_to_others")
SPINS_KEPT = 2  # a thread that has waited longer than so many steps is in the state of one that waited so long


class _Stepwise(ast.NodeTransformer):
    """Accesses to memory become ``yield``, calls of the module's own functions ``yield from``."""

    def __init__(self, functions: set[str]) -> None:
        self.functions = functions

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""

        def step(name: str) -> ast.expr:
            return ast.Yield(ast.Tuple([ast.Constant(name), *node.args], ast.Load()))

        if name == "call":  # takes a while: others go on in between
            return ast.Tuple([step("begin"), step("end")], ast.Load())
        if name in ACCESSES:
            return step(name)
        return ast.YieldFrom(node) if name in self.functions else node


def stepwise(module: ModuleType, changes: Mapping[str, str] | None = None, **constants: int) -> dict[str, Callable]:
    """Return a module's functions as generators of steps; ``changes`` to the source must each be of one place."""
    source = inspect.getsource(module)
    for old, new in (changes or {}).items():
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
        source = source.replace(old, new)
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for function in tree.body:
        function.decorator_list = []
    tree = ast.fix_missing_locations(_Stepwise({function.name for function in tree.body}).visit(tree))
    names = {**vars(module), **constants}
    exec(compile(tree, module.__name__, "exec"), names)
    return {function.name: names[function.name] for function in tree.body}


@cache
def _live(code: CodeType) -> dict[int, list[str]]:
    """The variables whose values are still read after each instruction; more of them do no harm."""
    instructions = list(dis.get_instructions(code))
    at = {instruction.offset: number for number, instruction in enumerate(instructions)}
    before: list[set[str]] = [set() for _ in instructions]
    after: list[set[str]] = [set() for _ in instructions]
    changed = True
    while changed:
        changed = False
        for number in reversed(range(len(instructions))):
            instruction = instructions[number]
            name, value = instruction.opname, instruction.argval
            follow = []
            ends = name.startswith(("RETURN", "RAISE", "RERAISE")) or (name.startswith("JUMP") and "_IF_" not in name)
            if not ends and number + 1 < len(instructions):
                follow.append(number + 1)
            if instruction.opcode in (*dis.hasjrel, *dis.hasjabs):
                follow.append(at[value])
            after[number] = set().union(*(before[one] for one in follow))
            new = after[number] - {value} if name == "STORE_FAST" else set(after[number])
            if "LOAD_FAST" in name:
                new |= set(value) if isinstance(value, tuple) else {value}
            if new != before[number]:
                before[number], changed = new, True
    # The variables of loops say how far they have come.
    stores = [second.argval for first, second in pairwise(instructions) if first.opname == "FOR_ITER"]
    loops = {name[0] if isinstance(name, tuple) else name for name in stores}
    return {instruction.offset: sorted(live | loops) for instruction, live in zip(instructions, after, strict=True)}


class _Thread:
    """A generator that can be made again from what it was answered."""

    def __init__(self, make: Callable[[], Steps], answers: Sequence[Any] = ()) -> None:
        self.answers: list[Any] = []
        self.generator = make()
        self.pending: tuple | None = next(self.generator)
        for answer in answers:
            self.go_on(answer)

    def go_on(self, answer: Any) -> None:
        self.answers.append(answer)
        try:
            self.pending = self.generator.send(answer)
        except StopIteration:
            self.pending = None

    def state(self) -> tuple:
        if self.pending is None:
            return ()
        frames, generator = [], self.generator
        while generator is not None and generator.gi_frame is not None:
            frame = generator.gi_frame
            live, values = _live(frame.f_code)[frame.f_lasti], frame.f_locals
            kept = [(name, values[name]) for name in live if isinstance(values.get(name), int)]
            kept = [(name, min(value, SPINS_KEPT) if name == "spins" else value) for name, value in kept]
            frames.append((frame.f_code.co_name, frame.f_lasti, *kept))
            generator = generator.gi_yieldfrom
        return tuple(frames)


class Broken(AssertionError):
    """What must hold at every moment does not."""


class Interleavings:
    """All orders of the steps of several threads.

    Parameters
    ----------
    threads : sequence of callable
        Each makes a generator of steps. Besides accesses to memory these may be ``("choose", n)``, which is answered by
        each number below n, and any that ``watch`` knows.
    memory : mapping
    watch : callable
        ``watch(memory, step)`` is called before each step, may change memory by what only the checker knows, and raises
        `Broken`. Its answer is that of a step that is no access.
    quiet : set of str
        What is done together with the step before it: such as plain reads, of what nobody changes meanwhile.
    ended : callable
        Whether a thread is no longer there, by its number, whatever it was doing.
    """

    def __init__(
        self,
        threads: Sequence[Callable[[], Steps]],
        memory: Mapping[Hashable, int],
        watch: Callable[[Memory, tuple], Any],
        quiet: Set[str],
        ended: Callable[[Memory, int], bool] = lambda memory, number: False,
    ) -> None:
        self.makers, self.memory, self.watch, self.quiet, self.ended = threads, dict(memory), watch, quiet, ended

    def explore(self, limit: int | None = None) -> int:
        """Go through all states, or through so many, and return how many there are.

        Raises
        ------
        Broken
            If something is wrong in one of them, or, of all, if the first thread can no longer come to its end.
        """
        threads = [_Thread(make) for make in self.makers]
        memory = dict(self.memory)
        for thread in threads:
            self._to_step(thread, memory)
        first = self._state(threads, memory)
        numbers, before, ends = {first: 0}, [[]], []
        todo = [(0, memory, [thread.answers[:] for thread in threads])]
        while todo:
            if limit and len(before) >= limit:
                return len(before)
            number, memory, answers = todo.pop()
            threads = [_Thread(make, given) for make, given in zip(self.makers, answers, strict=True)]
            if threads[0].pending is None:
                ends.append(number)
                continue
            moves = [
                (at, choice)
                for at, thread in enumerate(threads)
                if thread.pending is not None and not self.ended(memory, at)
                for choice in (range(thread.pending[1]) if thread.pending[0] == "choose" else (None,))
            ]
            for index, (at, choice) in enumerate(moves):
                if index:  # the generators of the state have gone on
                    threads = [_Thread(make, given) for make, given in zip(self.makers, answers, strict=True)]
                after = dict(memory)
                thread = threads[at]
                thread.go_on(choice if choice is not None else self._do(after, thread.pending))
                self._to_step(thread, after)
                state = self._state(threads, after)
                if state not in numbers:
                    numbers[state] = len(before)
                    before.append([])
                    todo.append((numbers[state], after, [thread.answers[:] for thread in threads]))
                before[numbers[state]].append(number)
        self._all_end(before, ends)
        return len(before)

    def _state(self, threads: Sequence[_Thread], memory: Memory) -> tuple:
        return frozenset(item for item in memory.items() if item[1]), *(thread.state() for thread in threads)

    def _to_step(self, thread: _Thread, memory: Memory) -> None:
        """Let a thread do what is no step of its own."""
        while thread.pending and thread.pending[0] in self.quiet:
            thread.go_on(self._do(memory, thread.pending))

    def _do(self, memory: Memory, step: tuple) -> Any:
        answer = self.watch(memory, step)
        name, *arguments = step
        if name not in ACCESSES:
            return answer
        if not arguments:
            return None
        was = memory.get(arguments[0], 0)
        if name in ("store", "atomic_store"):
            memory[arguments[0]] = arguments[1]
        elif name == "atomic_add":
            memory[arguments[0]] = was + arguments[1]
        elif name == "atomic_replace" and was == arguments[1]:
            memory[arguments[0]] = arguments[2]
        return was

    @staticmethod
    def _all_end(before: Sequence[Sequence[int]], ends: Sequence[int]) -> None:
        reached, todo = set(ends), list(ends)
        while todo:
            for number in before[todo.pop()]:
                if number not in reached:
                    reached.add(number)
                    todo.append(number)
        if len(reached) < len(before):
            raise Broken(f"the first thread waits for ever, from {len(before) - len(reached)} states of {len(before)}")
