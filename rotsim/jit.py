"""What numba and LLVM have to be told: how `rotsim.compiled`'s kernels and parts become machine code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import event
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering
from numba.extending import intrinsic, overload, register_jitable

from rotsim import noise
from rotsim.compiled import PARTS, Recipe, digest, specialised, wide_vectors

# no wrappers: only kernels call a part, and a dozen wrappers take LLVM a second
_PART = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_registered: set[Callable[..., Any]] = set()
_kernels: dict[Any, str] = {}


class _LowerPart(Lower):
    """Numba's generation of LLVM's code, with the hint of `inlined` on every loop."""

    def post_lower(self) -> None:
        super().post_lower()
        if self.metadata["interleave"] is None:
            return
        count = ir.Constant(ir.IntType(32), self.metadata["interleave"])
        hints = [  # a pass of the update is long as it is
            self.module.add_metadata(["llvm.loop.interleave.count", count]),
            self.module.add_metadata(["llvm.loop.unroll.disable"]),
        ]
        place = {block: position for position, block in enumerate(self.function.blocks)}
        for block in self.function.blocks:
            jump = block.terminator
            if jump is not None and len(jump.operands) == 1 and place.get(jump.operands[0], len(place)) <= place[block]:
                loop = self.module.add_metadata([*hints, hints[0]])
                loop.operands = (loop, *hints)  # a loop's metadata begin with themselves, which tells loops apart
                jump.set_metadata("llvm.loop", loop)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LoweringOfPart(NativeLowering):
    _name = "lowering_of_part"

    @property
    def lowering_class(self) -> type[Lower]:
        return _LowerPart


class _Part(Compiler):
    """Numba's compiler, told that a function's array arguments do not overlap, and how to interleave its loops.

    Otherwise the vectoriser checks every pair of arrays at run time, and gives up at more than eight pairs.
    """

    interleave: int | None = None

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        self.state.flags.no_cpython_wrapper = self.state.flags.no_cfunc_wrapper = True  # only kernels call it
        self.state.metadata["interleave"] = self.interleave
        managers = super().define_pipelines()
        for manager in managers:
            manager.passes = [(_LoweringOfPart if one is NativeLowering else one, why) for one, why in manager.passes]
            manager.finalize()
        return managers


@intrinsic
def _wide_vectors(typing_context):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # `add` itself takes no key="value"
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _fma(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


#: Parts that are one instruction, or none, in a kernel; Python has its own way.
_INTRINSIC: dict[Any, Any] = {
    wide_vectors: lambda: lambda: _wide_vectors(),  # type: ignore[call-arg]
    noise.fma: lambda a, b, c: lambda a, b, c: _fma(a, b, c),  # type: ignore[call-arg]
}


def register() -> None:
    """Tell numba of every part that was tagged since the last call."""
    for function in PARTS.keys() - _registered:
        options: Any = {**_PART, **PARTS[function]}
        if function in _INTRINSIC:
            inline = options.pop("inline")
            overload(function, inline=inline, jit_options=options)(_INTRINSIC[function])
        else:
            register_jitable(**options)(function)
        _registered.add(function)


def njit(*arguments: Any, **options: Any) -> Any:
    """`numba.njit` for a function that may call parts."""
    register()
    return numba.njit(*arguments, **options)


def build(made: Recipe) -> Any:
    """The dispatcher of a kernel, on disk where that is possible, or of an inlined part."""
    if not made.kernel:
        compiler = type(f"_Part{made.interleave}", (_Part,), {"interleave": made.interleave})
        return njit(specialised(made.function, made.name, made.bound), pipeline_class=compiler, **made.options)
    special = specialised(made.function, f"{made.name}_{digest(made)}", made.bound)
    try:
        dispatcher = njit(special, cache=True, **made.options)
        _kernels[dispatcher] = f"{made.name} (once per machine)"
    except RuntimeError:  # no writable cache directory anywhere: compile in memory
        dispatcher = njit(special, **made.options)
        _kernels[dispatcher] = f"{made.name} (in every process: no directory for the cache is writable)"
    return dispatcher


class _Announcer(event.Listener):
    """Says in a terminal what is being compiled, which takes seconds."""

    def on_start(self, event: event.Event) -> None:
        what = _kernels.get(event.data["dispatcher"])
        if what is not None and sys.stderr is not None and sys.stderr.isatty():
            print(f"rotsim: compiling {what}", file=sys.stderr)

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())
