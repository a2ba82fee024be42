"""The processor that a timing was taken on, as numba's compiler names it."""

import os

from llvmlite import binding

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "neon": "NEON", "sse2": "SSE2"}  # widest first

HELD = {"x86-64-v3": "AVX2"}  # what numba's names of kinds of processor stand for


def processor() -> str:
    """Name of the microarchitecture and its widest vectors, such as ``znver3, AVX2``, or what it is held to."""
    if held := os.environ.get("NUMBA_CPU_NAME"):
        return f"{binding.get_host_cpu_name()} held to {HELD.get(held, held)}"
    features = binding.get_host_cpu_features()
    widest = next((label for flag, label in VECTORS.items() if features.get(flag)), "no vectors")
    return f"{binding.get_host_cpu_name()}, {widest}"
