"""`equilibria`: the equilibrium of many settings at once, in arrays.

The formulas are those of `rotsim.equilibrium`: the `white` of a `Theory` takes arrays of its `elementwise`
hyperparameters. Settings that differ in others, such as betas, are answered group by group; `equilibria` interpolates
between betas of AdamW where that takes less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, fields, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from rotsim.errors import (
    InvalidInput,
    NoEquilibrium,
    array,
    choice,
    constructed,
    instance,
    integer,
    mapping,
    require,
    sequence,
)
from rotsim.gradients import Gradient, GradientPower, checked_gradient
from rotsim.optimizers.base import Optimizer
from rotsim.theory import betas
from rotsim.theory.base import Method, Theory, required_theory, theory_of
from rotsim.theory.boundary import check_time, within_floats
from rotsim.theory.equilibrium import Equilibrium, equilibrium, quantities

AT_ONCE = 4096  # settings, each of which takes some thousand numbers of memory
_NAMES = ("norm", "rotation", "update_rms", "relaxation_steps", "model_error")

#: By hyperparameter: one value per setting, or for betas a row.
Columns: TypeAlias = dict[str, np.ndarray]


@within_floats
def equilibria(
    optimizer: type[Optimizer] | Optimizer,
    dim: Any = 1024,
    gradient: Gradient | None = None,
    method: Method = "exact",
    rows: Any = None,
    **hyperparameters: Any,
) -> Equilibrium:
    """`rotsim.equilibrium` for arrays of hyperparameters.

    Parameters
    ----------
    optimizer : type of Optimizer, or Optimizer
        For example ``rotsim.AdamW``, or a spec whose values hold for what is not given.
    dim : int or ndarray of int, any shape
        Fan-in C >= 2.
    gradient : Gradient, optional
        As in `rotsim.equilibrium`. One that is more than white noise is answered setting by setting.
    method : {"exact", "leading"}
    rows : int or ndarray of int, any shape, optional
        Neurons of one matrix, >= 2, as in `rotsim.equilibrium`.
    **hyperparameters : float or ndarray, any shape
        By name, ranges as in the optimizer; `betas` are two of these, or three. They broadcast with each other, with
        `dim` and with `rows`. One that is no number, such as a name, is given once. Between many betas of AdamW numbers
        are interpolated, to 1e-5, which is declared.

    Returns
    -------
    Equilibrium
        Of arrays with the common shape; NaN where there is no equilibrium.

    Raises
    ------
    InvalidInput
        If a name is unknown or missing, or a value is out of range. If it takes more than 15 s: `rotsim.sweep` has
        no such limit, and shows its progress.

    Examples
    --------
    >>> import numpy as np
    >>> import rotsim
    >>> found = rotsim.equilibria(rotsim.AdamW, lr=np.array([1e-4, 1e-3, 1e-2]), weight_decay=0.1)
    >>> np.round(found.rotation, 5).tolist()
    [0.00103, 0.00324, 0.01026]
    """
    choice("method", method, ("exact", "leading"))
    model = checked_gradient(gradient)
    kind, values, whole = _values(optimizer, hyperparameters)
    given = _sizes("dim", dim)
    parts = [(name, part) for name, pair in values.items() for part in pair]
    try:
        *spread, full, high = np.broadcast_arrays(
            *(part for _, part in parts), given, given if rows is None else _sizes("rows", rows)
        )
    except ValueError:
        raise InvalidInput(
            "hyperparameters, `dim` and `rows` must have shapes that broadcast with each other"
        ) from None
    columns: Columns = {}
    for (name, _), part in zip(parts, spread, strict=True):
        earlier = columns.get(name)
        columns[name] = part.ravel() if earlier is None else np.column_stack([earlier, part.ravel()])
    shape, sizes = full.shape, full.ravel().astype(int)
    made_of = [None] * sizes.size if rows is None else high.ravel().astype(int).tolist()
    for place in _extremes(kind, columns, sizes, whole) | _ends(high.ravel()):
        required_theory(_spec(kind, columns, place, whole), made_of[place], int(sizes[place]))
        integer("dim", int(sizes[place]), low=2)
    found = many(kind, columns, sizes, model, method, between=True, whole=whole)
    for place in np.flatnonzero(np.isnan(found["rotation"])).tolist():
        try:
            alone = equilibrium(_spec(kind, columns, place, whole), int(sizes[place]), model, method, made_of[place])
        except (InvalidInput, NoEquilibrium):
            continue
        for name in _NAMES:
            found[name][place] = getattr(alone, name)
    reshaped: dict[str, Any] = {name: found[name].reshape(shape) for name in _NAMES}
    return Equilibrium(**reshaped, method=method)


def of_specs(specs: Sequence[Optimizer], dim: np.ndarray, gradient: Gradient, method: Method) -> Columns:
    """`many` for specs of one kind, at least one, with a `dim` each."""
    theory = theory_of(specs[0])
    names = [field.name for field in fields(specs[0]) if field.init] if theory and theory.elementwise else []
    columns = {name: np.array([getattr(spec, name) for spec in specs]) for name in names}
    return many(type(specs[0]), columns, dim, gradient, method)


def many(
    kind: type[Optimizer],
    columns: Columns,
    dim: np.ndarray,
    gradient: Gradient,
    method: Method,
    between: bool = False,
    whole: Mapping[str, Any] = MappingProxyType({}),
) -> Columns:
    """Fields of `Equilibrium` for settings that were checked one by one.

    Parameters
    ----------
    kind : type of Optimizer
    columns : dict of ndarray, shape (settings,), or (settings, count) for betas
        By name, all hyperparameters of `kind` that are numbers.
    dim : ndarray of int, shape (settings,)
        Each >= 2.
    gradient : Gradient
    method : {"exact", "leading"}
    whole : mapping, optional
        The other hyperparameters by name, the same in all settings.
    between : bool
        Interpolate between betas where these are so many that it pays: to 1e-5, which is declared. A setting's number
        then depends on the others.

    Returns
    -------
    dict of ndarray, shape (settings,)
        NaN where `equilibrium` is to be asked, which knows or says why not.

    Notes
    -----
    The formulas are those of each optimizer's `white`, such as `derivations.lion.exact_norm_squared`.
    """
    found = {name: np.full(len(dim), np.nan) for name in _NAMES}
    for theory, cells, names in _alike(kind, columns, between and method == "exact", whole):
        for law, spread, chosen in _laws(gradient, dim, cells):
            check_time()
            chunk = type(theory)(_of(theory.spec, columns, chosen, names))
            try:
                with np.errstate(all="ignore"):
                    values, sound = quantities(chunk, dim[chosen], law, spread, method)
            except (InvalidInput, NoEquilibrium, ArithmeticError, ValueError):
                continue
            for name in _NAMES:
                found[name][chosen] = np.where(sound, values[name], np.nan)
    return found


def _alike(
    kind: type[Optimizer], columns: Columns, between: bool, whole: Mapping[str, Any]
) -> Iterator[tuple[Theory[Any], np.ndarray, tuple[str, ...]]]:
    """Settings, by their places, that share what must be single numbers; a theory of one; what need not be.

    With `between` that is betas as well, where many are asked for.
    """
    first = theory_of(_spec(kind, columns, 0, whole)) if columns and len(columns["lr"]) else None
    if first is None or not first.elementwise:
        return
    shared = [column.reshape(len(column), -1) for name, column in columns.items() if name not in first.elementwise]
    table = np.hstack(shared) if shared else np.zeros((len(columns["lr"]), 1))
    alike = bool((table == table[0]).all())  # mostly, and sorting rows takes long
    group = np.zeros(len(table), int) if alike else np.unique(table, axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(group, kind="stable")
    if between and first.interpolated and not alike:
        inside = np.flatnonzero(columns["betas"][:, 1] >= betas.LEAST_BETA2)
        if betas.pays(*columns["betas"][inside].T):
            yield type(first)(_spec(kind, columns, inside[0], whole)), inside, (*first.elementwise, "betas")
            order = order[np.isin(order, inside, invert=True)]
    for cells in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(cells):
            yield type(first)(_spec(kind, columns, cells[0], whole)), cells, first.elementwise


def _laws(
    gradient: Gradient, dim: np.ndarray, cells: np.ndarray
) -> Iterator[tuple[GradientPower, np.ndarray, np.ndarray]]:
    """The law of white noise and the spread of angles at the dims of some settings, as many at a time as memory has."""
    known: dict[int, tuple[GradientPower, float]] = {}
    for one in np.unique(dim[cells]).tolist():
        with suppress(InvalidInput):
            law = gradient.power(one)
            if law.white:
                known[one] = law, gradient.angle_spread(one)
    cells = cells[np.isin(dim[cells], list(known))]
    for start in range(0, len(cells), AT_ONCE):
        chosen = cells[start : start + AT_ONCE]
        found = [known[one] for one in dim[chosen].tolist()]
        size: Any = np.array([law.scale_squared for law, _ in found])
        yield replace(found[0][0], scale_squared=size), np.array([spread for _, spread in found]), chosen


def _sizes(name: str, given: Any) -> np.ndarray:
    """Whole numbers, as floats; where they begin is checked one by one."""
    rule = "be whole numbers >= 2"
    found = array(name, given, rule)
    require(bool((found == np.floor(found)).all() and (abs(found) < 2**62).all()), name, rule, given)
    return found


def _values(
    optimizer: Any, given: dict[str, Any]
) -> tuple[type[Optimizer], dict[str, list[np.ndarray]], dict[str, Any]]:
    """Hyperparameters that are numbers, each as one array, or several for betas; and the others, as they are."""
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        kind, base = optimizer, None
    else:
        base = instance("optimizer", optimizer, Optimizer, "an optimizer's class or spec, such as rotsim.AdamW")
        kind = type(base)
    if kind.decay == "none":
        raise InvalidInput(
            f"`optimizer` must have a norm of its own; {kind.__name__} keeps any. "
            "Ask rotsim.equilibrium, setting by setting"
        )
    own = [field for field in fields(kind) if field.init]
    known: dict[str, Any] = {field.name: field.default if base is None else getattr(base, field.name) for field in own}
    values = known | mapping("hyperparameters", given, known)
    if missing := [name for name, value in values.items() if value is MISSING]:
        raise InvalidInput(f"{kind.__name__} needs a value for {', '.join(missing)}")
    found: dict[str, list[np.ndarray]] = {}
    whole: dict[str, Any] = {}
    for name, value in values.items():
        if name == "betas":
            rule = f"be {len(known[name])} of numbers"
            parts = sequence(name, value, rule)
            require(len(parts) == len(known[name]), name, rule, value)
            found[name] = [array(f"{name}[{i}]", part, "be numbers") for i, part in enumerate(parts)]
        elif isinstance(known[name], bool):
            found[name] = [np.asarray(value, dtype=bool)]
        elif known[name] is MISSING or isinstance(known[name], float):
            found[name] = [array(name, value, "be numbers")]
        else:
            whole[name] = value
    return kind, found, whole


def _spec(kind: type[Optimizer], columns: Columns, place: Any, whole: Mapping[str, Any]) -> Optimizer:
    """One setting, checked."""
    values = {name: column[place].tolist() for name, column in columns.items()}
    made = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return constructed(kind, {**whole, **made}, kind.name)


def _of(spec: Optimizer, columns: Columns, chosen: np.ndarray, names: tuple[str, ...]) -> Optimizer:
    """The same optimizer with arrays in place of some hyperparameters, which were checked one by one."""
    found = copy(spec)
    for name in names:
        column = columns[name][chosen]
        object.__setattr__(found, name, column if column.ndim == 1 else tuple(column.T))
    return found


def _extremes(kind: type[Optimizer], columns: Columns, dim: np.ndarray, whole: Mapping[str, Any]) -> set[int]:
    """Settings that are wrong if any is: every rule is an interval of one number, or of the decay in units of a limit.

    That of SGDM's decay depends on the momentum, which `decay_limit` takes elementwise.
    """
    if not len(dim):
        return set()
    arrays: Any = copy(_spec(kind, columns, 0, whole))
    for name, column in columns.items():
        if column.ndim == 1:
            object.__setattr__(arrays, name, column)
    each = [part for column in columns.values() for part in column.reshape(len(dim), -1).T]
    each += [dim, arrays.lr * arrays.weight_decay / arrays.decay_limit]
    return set().union(*map(_ends, each))


def _ends(values: np.ndarray) -> set[int]:
    """Places of the smallest and the largest."""
    return {int(np.argmin(values)), int(np.argmax(values))} if len(values) else set()
