"""Compile a kernel once per set of sources and keep it on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering
from numba.extending import intrinsic


@cache
def _source_digest() -> str:
    """Digest of every source that kernels are built from: numba's cache looks at one file only."""
    package = Path(__file__).resolve().parent
    folders = ("gradients", "optimizers", "simulation")
    shared = ["compiled.py", "noise.py", "theory/closed_forms.py", "theory/damped.py", "theory/record.py"]
    files = [
        *(package / name for name in shared),
        *(path for name in folders for path in sorted((package / name).glob("*.py"))),
    ]
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


class _LowerPart(Lower):
    """Numba's generation of LLVM's code, with the hint of `inlined` on every loop."""

    def post_lower(self) -> None:
        super().post_lower()
        if self.metadata["interleave"] is None:
            return
        count = ir.Constant(ir.IntType(32), self.metadata["interleave"])
        hint = self.module.add_metadata(["llvm.loop.interleave.count", count])
        place = {block: position for position, block in enumerate(self.function.blocks)}
        for block in self.function.blocks:
            jump = block.terminator
            if jump is not None and len(jump.operands) == 1 and place.get(jump.operands[0], len(place)) <= place[block]:
                loop = self.module.add_metadata([hint, hint])
                loop.operands = (loop, hint)  # a loop's metadata begin with themselves, which tells loops apart
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
def wide_vectors(typing_context):  # type: ignore[no-untyped-def]
    """Let LLVM use 512-bit vectors in the calling kernel where the processor has them.

    For Intel's it prefers 256 bits, against the lower clock of early AVX-512 code; for a loop that is
    arithmetic alone that costs a third.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # `add` itself takes no key="value"
        return context.get_dummy_value()

    return types.void(), generate


def specialised(function: Callable[..., Any], name: str, bound: dict[str, Any]) -> Callable[..., Any]:
    """`function` under a new name, with the global names in `bound` replaced."""
    scope = {**function.__globals__, **bound}
    special = FunctionType(function.__code__, scope, name)
    special.__qualname__ = name
    return special


def inlined(
    function: Callable[..., Any], name: str, bound: dict[str, Any], interleave: int | None = None, **options: Any
) -> Callable[..., Any]:
    """`function` as part of a kernel that calls it: specialised like `compiled`; its arrays must not overlap.

    Its loops take `interleave` vectors at a time. What LLVM chooses unless told, two or four, can leave a neuron of
    dim 64 without a single pass of the vectorised loop.
    """
    options = {"nogil": True, "error_model": "numpy", "forceinline": True, **options}
    compiler = type(f"_Part{interleave}", (_Part,), {"interleave": interleave})
    part: Callable[..., Any] = njit(pipeline_class=compiler, **options)(specialised(function, name, bound))
    return part


def compiled(function: Callable[..., None], name: str, bound: dict[str, Any], **options: Any) -> Callable[..., None]:
    """`function` as a jitted kernel (compiled at its first call) with the global names in `bound` replaced.

    It gets a name of its own, made of `name` and the sources' digest, so that numba's on-disk cache
    keeps specialisations apart and never serves a stale one.
    """
    special = specialised(function, f"{name}_{_source_digest()}", bound)
    options = {"nogil": True, "error_model": "numpy", **options}
    kernel: Callable[..., None]
    try:
        kernel = njit(cache=True, **options)(special)
    except RuntimeError:  # no writable cache directory anywhere: compile in memory
        kernel = njit(**options)(special)
    return kernel
