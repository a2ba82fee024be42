"""Constants of Python, and the names of its functions, as JavaScript has them."""

from __future__ import annotations

import json
from math import isfinite, isnan
from typing import Any

import numpy as np

#: Names of Python and NumPy, and what does the same in JavaScript; those with a dollar are of `runtime.js`.
FUNCTIONS = {
    "sqrt": "Math.sqrt", "exp": "Math.exp", "expm1": "Math.expm1", "log": "Math.log", "log1p": "Math.log1p",
    "sin": "Math.sin", "cos": "Math.cos", "arcsin": "Math.asin", "arctan2": "Math.atan2", "sign": "Math.sign",
    "abs": "Math.abs", "maximum": "Math.max", "minimum": "Math.min", "asin": "Math.asin", "floor": "Math.floor",
    "ceil": "Math.ceil", "zeros": "$zeros", "ones": "$ones", "full": "$full", "zeros_like": "$zerosLike",
    "ones_like": "$onesLike", "min": "Math.min", "max": "Math.max", "float": "Number", "int": "Math.trunc",
    "norm": "$size", "arange": "$range", "append": "$append", "count_nonzero": "$count", "array": "$array",
    "rotsim.theory.spectral.of_polynomials": "$spectral", "rotsim.theory.spectral.row_response": "$rowResponse",
    "rotsim.theory.record.in_parts": "$inParts", "rotsim.theory.base.required_theory": "$theory",
    "rotsim.theory.betas.adam_covariance": "$adamCovariance",
}  # fmt: skip
#: Methods of what those functions return.
METHODS = {"modes": "modes", "filling": "filling"}


def literal(value: Any) -> str:
    """A constant as JavaScript has it: numbers, text, tuples, arrays of numbers and named tuples."""
    if isinstance(value, np.ndarray):
        if value.ndim == 1:
            return f"Float64Array.from([{', '.join(map(literal, value.tolist()))}])"
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, np.generic):
        return literal(value.item())
    if isinstance(value, float):
        return repr(value) if isfinite(value) else "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if hasattr(value, "_fields"):
        return f"$named({json.dumps(value._fields)}, [{', '.join(map(literal, value))}])"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)}: {literal(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
