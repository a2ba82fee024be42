"""Which parameters a recorder follows, the hyperparameters in force for each, and the spec that stands for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rotsim.errors import InvalidInput, is_a, require, shown
from rotsim.measure.neurons import Axes, Neurons, checked_axes, fused, numbering_of
from rotsim.measure.products import Factors, products_of
from rotsim.measure.quantities import WINDOW_RATES as WINDOW_RATES
from rotsim.measure.selection import (
    Selection,
    Split,
    ends_in,
    groups_of,
    nothing_to_record,
    row_labels,
    select,
    unwrapped,
)
from rotsim.measure.sharding import Groups, added, axes_by_level, first_along, groups_of_rows, local
from rotsim.measure.spec import NoSpec, optimizer_spec, rates_in_force
from rotsim.optimizers import Unmodelled
from rotsim.optimizers.base import Optimizer

RATES = ("lr", "weight_decay", "momentum")
Specs = Optimizer | Sequence[Optimizer | None] | None
_LEAST_LR = 1e-12  # in place of 0, where a warm-up may start
_PRODUCT = "each of them is trained, and decays, by itself"


@dataclass
class Entry:
    """One recorded parameter, the names of its rows, and the hyperparameters last seen in force for it.

    ``changed`` holds the last step that saw another learning rate, weight decay or momentum than before. ``looked``
    counts the sampled steps after which the parameter was looked at once more, before the next one. ``touched`` counts
    those where it had changed by then. Of the steps ``sampled``, ``absent`` counts those without a gradient at all.
    ``initial_norm`` are the lengths of its rows after ``initial_step`` steps, before the first that was seen.
    ``lr`` is the last that moved the weights, ``in_force`` the rates as they are, 0 included. ``totals`` are their sums
    and those of their squares over the ``counted`` sampled steps of the running window. ``spec`` stands for its group,
    ``rule`` for what moved it at first: of a rotational variant, the optimizer that its updates are of.
    ``factors`` are those of a product, of which ``parameter`` is the second.
    ``of_all`` counts the neurons of the parameter: those that are not recorded, and those of other processes, too.
    ``fan_in`` counts the weights of a neuron, and ``groups`` are the processes that have a part of them.
    """

    name: str
    parameter: torch.Tensor
    shape: torch.Size
    layout: Neurons
    labels: list[str]
    group: int
    lr: float
    weight_decay: float
    momentum: Any
    spec: Optimizer
    of_all: int
    fan_in: int
    groups: Groups = ()
    changed: dict[str, int] = field(default_factory=dict)
    sampled: int = 0
    absent: int = 0
    looked: int = 0
    touched: torch.Tensor | float = 0.0
    initial_norm: torch.Tensor | None = None
    initial_step: int = 0
    in_force: tuple[float, float] = (np.nan, np.nan)
    at_start: tuple[float, float] | None = None
    totals: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))
    counted: int = 0
    factors: Factors | None = None

    def __post_init__(self) -> None:
        self.rule = self.spec.plain

    @property
    def neurons(self) -> int:
        """The number that is recorded."""
        return self.layout.count

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of its shape as float64 rows, one per recorded neuron."""
        return self.layout.rows(tensor).to(torch.float64)

    def count(self) -> None:
        """Add the rates in force to the sums of the running window."""
        self.totals += np.array(self.in_force) ** [[1], [2]]
        self.counted += 1

    def means(self) -> tuple[float, ...]:
        """Of the rates that were counted, the mean of each and its RMS."""
        if not self.counted:
            return (*self.in_force, *self.in_force)
        mean, square = self.totals / self.counted
        return (*mean.tolist(), *np.sqrt(square).tolist())

    def weights(self) -> torch.Tensor:
        """The rows of its recorded neurons, as they are now: a copy, or a view of the parameter."""
        return self.factors.weights(self.layout) if self.factors else self.layout.rows(self.parameter.detach())

    def gradient(self) -> torch.Tensor | None:
        """The gradient of these rows, or what stands for it; None if it has none."""
        if self.factors is not None:
            return self.factors.gradient(self.layout)
        return None if self.parameter.grad is None else self.layout.rows(self.parameter.grad.detach())

    def among(self, here: Mapping[int, int]) -> bool:
        """True if the optimizer still updates it, by `groups_of`, and it has the shape it had."""
        shape = self.factors.shape if self.factors else local(self.parameter).shape
        return id(self.parameter) in here and shape == self.shape


class Recorded:
    """The entries of one recorder, in the order in which they joined; they stay when their parameter leaves.

    Parameters
    ----------
    model, optimizer, selection, split, spec, axes, rows
        As `rotsim.measure.Recorder` takes them.

    Attributes
    ----------
    entries : list of Entry
    skipped : dict of str
        Why a parameter of the model is not among them.
    left : dict of int
        The last step of those that the optimizer updates no more.
    """

    def __init__(
        self,
        model: torch.nn.Module | Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        selection: Selection,
        split: Split,
        spec: Specs,
        axes: Axes | None = None,
        rows: int = 1 << 62,
    ) -> None:
        self._model, self._optimizer, self._selection, self._split = model, optimizer, selection, split
        self._given_spec, self._axes, self._most = spec, axes or {}, rows
        self.entries: list[Entry] = []
        self.skipped: dict[str, str] = {}
        self.left: dict[str, int] = {}
        self.select()
        if not self.entries:
            raise nothing_to_record(self.skipped)
        for argument, given in (("split", split), ("axes", self._axes)):
            unused = [key for key in given if not any(ends_in(entry.name, key) for entry in self.entries)]
            if not unused:
                continue
            raise InvalidInput(
                f"`{argument}` names {', '.join(map(repr, unused))}, which no recorded parameter ends in; "
                f"choose from {', '.join(entry.name for entry in self.entries)}"
            )

    def select(self) -> None:
        """Append to the entries what the model and the optimizer now share and the selection names."""
        known, names = {id(entry.parameter) for entry in self.entries}, [entry.name for entry in self.entries]
        found, self.skipped = select(self._model, self._optimizer, self._selection)
        numbering = numbering_of(unwrapped(self._model)) if any(id(p) not in known for p, _ in found.values()) else {}
        for name, (parameter, group) in found.items():
            if id(parameter) not in known:
                whole = self._layout(name, parameter.shape, *numbering.get(name, ((0,), 1)))
                split = self._split
                if (blocks := fused(name, whole.total, whole.dim)) and not any(ends_in(name, key) for key in split):
                    split = {**split, name: blocks}
                labels = row_labels(name, whole.total, split)
                layout, part = whole, local(parameter)
                if part.shape != parameter.shape:
                    axis = whole.axes[0]
                    if whole.groups > 1:
                        self.skipped[name] = "sharded (DTensor), in groups of a transposed convolution"
                        continue
                    layout = self._layout(name, part.shape, whole.axes)
                    if any(cut in whole.axes[1:] for cut in (axes_by_level(parameter) or {}).values()):
                        self.skipped[name] = "sharded (DTensor) across its neurons"
                        continue
                    if not layout.total:
                        self.skipped[name] = "empty: other processes have its neurons"
                        continue
                    start = first_along(parameter, axis) * (whole.total // parameter.shape[axis])
                    labels = labels[start : start + layout.total]
                labels = layout.labels(labels)
                if earlier := sum(other == name or other.startswith(f"{name} (") for other in names):
                    base, name = name, f"{name} ({earlier + 1})"
                    labels = [name + label[len(base) :] for label in labels]
                values = self._optimizer.param_groups[group]
                rates = self._hyperparameters(group)
                spec = self._spec_of(group, *rates)
                self.entries.append(
                    Entry(
                        name, parameter, part.shape, layout, labels, group, *rates, _momentum(values), spec,
                        whole.total, whole.dim, groups_of_rows(parameter, whole.axes),
                    )
                )  # fmt: skip

        for name, factors in products_of({name: parameter for name, (parameter, _) in found.items()}):
            if name not in names:
                group = groups_of(self._optimizer)[id(factors.second)]
                layout, rates = Neurons(factors.shape, most=self._most), self._hyperparameters(group)
                spec = Unmodelled(rates[0] or _LEAST_LR, rates[1], kind="product of two matrices", why=_PRODUCT)
                momentum = _momentum(self._optimizer.param_groups[group])
                entry = Entry(
                    name, factors.second, factors.shape, layout, layout.labels([name] * layout.total), group, *rates,
                    momentum, spec, layout.total, layout.dim, factors=factors,
                )  # fmt: skip
                self.entries.append(entry)

    def _layout(self, name: str, shape: torch.Size, axes: tuple[int, ...], groups: int = 1) -> Neurons:
        for key, given in self._axes.items():
            if ends_in(name, key):
                axes, groups = checked_axes(name, given, shape), 1
                break
        return Neurons(shape, axes, self._most, groups)

    def rates(self) -> np.ndarray:
        """The `WINDOW_RATES` of the running window, shape (len(WINDOW_RATES), parameters)."""
        rows = [(*(e.at_start or e.in_force), *e.in_force, *_averages(e.momentum), *e.means()) for e in self.entries]
        return np.array(rows, dtype=np.float64).T

    def next_window(self) -> None:
        """Forget the rates at the start of the window that ended, and their sums."""
        for entry in self.entries:
            entry.at_start, entry.totals, entry.counted = None, np.zeros((2, 2)), 0

    def begin(self, step: int) -> None:
        """Keep the length of every row that no step has been seen to move yet, and the rates of that step."""
        if all(entry.initial_norm is not None for entry in self.entries):
            return
        new = [entry for entry in self.entries if entry.initial_norm is None]
        self.look(step)
        for entry in new:
            entry.initial_norm = torch.linalg.vector_norm(entry.weights().to(torch.float64), dim=1)
            entry.initial_step = step - 1
        spread = [entry for entry in new if entry.groups]
        squares = [entry.initial_norm.square()[None] for entry in spread if entry.initial_norm is not None]
        for entry, square in zip(spread, added(squares, [entry.groups for entry in spread]), strict=True):
            entry.initial_norm = square[0].sqrt()

    def specs(self) -> dict[str, Optimizer]:
        """The spec of every entry, at the rates last in force; as it was at first of one that has left.

        What became of hyperparameters in training is no reason to lose what was recorded. Where they are outside the
        range of their spec, `Unmodelled` says so.
        """
        here = groups_of(self._optimizer)
        for entry in self.entries:
            if entry.among(here) and entry.factors is None:
                try:
                    entry.spec = self._spec_of(here[id(entry.parameter)], entry.lr, entry.weight_decay)
                except InvalidInput as error:
                    kind = type(self._optimizer).__name__
                    entry.spec = Unmodelled(_LEAST_LR, 0.0, kind=kind, why=str(error))
        return {entry.name: entry.spec for entry in self.entries}

    def main(self) -> Entry:
        """The first entry with weight decay that the optimizer still moves, whose spec stands for the run."""
        here = groups_of(self._optimizer)
        entries = [entry for entry in self.entries if entry.among(here)] or self.entries
        return next((entry for entry in entries if entry.weight_decay), entries[0])

    def _spec_of(self, group: int, lr: float, weight_decay: float) -> Optimizer:
        rates = {"lr": lr or _LEAST_LR, "weight_decay": weight_decay}
        if (given := self._given(group)) is not None:
            return given
        try:
            return optimizer_spec(self._optimizer, group, **rates)
        except NoSpec as error:
            why = f"{error.why}; to compare with the closest theory, pass spec={error.nearest}"
            return Unmodelled(**rates, kind=type(self._optimizer).__name__, why=why)

    def _given(self, group: int) -> Optimizer | None:
        """The spec that the caller gave for a group."""
        given = self._given_spec
        if isinstance(given, Sequence):
            return given[group] if group < len(given) else None
        return given

    def look(self, step: int) -> list[Entry | None]:
        """Read the hyperparameters in force at `step`; the entries, None for those that the optimizer moves no more."""
        here = groups_of(self._optimizer)
        for entry in self.entries:
            if not entry.among(here):
                self.left.setdefault(entry.name, step - 1)
                continue
            entry.group = here[id(entry.parameter)]  # groups may have gone
            values = self._optimizer.param_groups[entry.group]
            (lr, weight_decay), momentum = self._hyperparameters(entry.group), _momentum(values)
            for name, value in (("lr", lr), ("weight_decay", weight_decay), ("momentum", momentum)):
                if value != getattr(entry, name):
                    entry.changed[name] = step
            entry.momentum, entry.in_force = momentum, (lr, weight_decay)
            entry.at_start = entry.at_start or entry.in_force
            entry.lr = lr or entry.lr  # at lr 0 nothing moves: keep the last one that moved the weights
            entry.weight_decay = weight_decay
        return [entry if entry.among(here) else None for entry in self.entries]

    def _hyperparameters(self, group: int) -> tuple[float, float]:
        """Learning rate and weight decay in force; those of the given spec where the optimizer has none."""
        spec = self._given(group)
        defaults = (spec.lr, spec.weight_decay) if spec is not None else (0.0, 0.0)
        return rates_in_force(self._optimizer, self._optimizer.param_groups[group], defaults)


def _momentum(group: Mapping[str, Any]) -> Any:
    """What the optimizer averages with: betas or momentum, by value."""
    found = group.get("betas", group.get("momentum"))
    return tuple(map(float, found)) if isinstance(found, tuple | list) else found


def _averages(momentum: Any) -> tuple[float, float]:
    """(β1, β2) of an optimizer's betas or momentum; NaN for what it does not have."""
    found = momentum if isinstance(momentum, tuple) else (momentum,)
    numbers = [float(value) for value in found[:2] if isinstance(value, int | float)]
    first, second = [*numbers, np.nan, np.nan][:2]
    return first, second


def checked_spec(spec: Any, optimizer: torch.optim.Optimizer) -> Specs:
    """Raise `InvalidInput` unless it is a spec, or one for each of the optimizer's groups; return it."""
    if spec is None or isinstance(spec, Optimizer):
        return spec
    if not is_a(spec, list, tuple) or not all(one is None or isinstance(one, Optimizer) for one in spec):
        raise InvalidInput(
            f"`spec` must be a rotsim optimizer, e.g. rotsim.SGDM(...), or a list of them; got {shown(spec)}"
        )
    groups = len(optimizer.param_groups)
    require(len(spec) == groups, "spec", f"hold one spec or None for each of the {groups} parameter groups", spec)
    return spec
