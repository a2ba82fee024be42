"""What every optimizer spec provides: hyperparameters, update rule, and the traits by which others tell it apart."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from math import inf, log
from typing import Any, ClassVar, Literal

import numpy as np

from rotsim.errors import InvalidInput, integer, nonnegative, positive, require, sequence, share

N_COEFFICIENTS = 7
DECOUPLED_RULE = "be < 1 (each step multiplies the weights by 1 - lr * weight_decay)"
TINY = float(np.finfo(np.float32).tiny)  # added to √v where ε is 0: a gradient of 0 then makes no step, not 0/0
LEAST_LR = 1e-30  # stands for a smaller rate, such as 0: it moves nothing, and Adam can divide by it

ActsOn = Literal["coordinate", "neuron", "matrix"]


@dataclass(frozen=True)
class Optimizer(ABC):
    """Frozen, validated hyperparameters of one optimizer.

    A subclass sets the class attributes, `update` (one coordinate, one step, jitted), `coefficients` (the scalars
    `update` needs at each step) and `examples`. ``lr`` and ``weight_decay`` are common to all. What theory knows of it
    is in `rotsim/theory/NAME.py`.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    #: ``update(w, m, v, g, c) -> (change, m, v)``; works on floats in the kernel, on arrays in the NumPy twin. A spec
    #: without it is only measured.
    update: ClassVar[Callable[..., Any]]
    #: What one update sees at once: the weights of a coordinate, of a neuron or of a layer.
    acts_on: ClassVar[ActsOn] = "coordinate"
    #: `update` is -lr·m with m = momentum·m + g + weight_decay·w, and these three are its first coefficients.
    linear: ClassVar[bool] = False
    #: Rows of length dim that the walk keeps for it besides weights and two moments, after those of the gradient. The
    #: update of a coordinate takes one more average after `c`, and returns it as well.
    memory_slots: ClassVar[int] = 0
    #: What the average of gradients becomes: a step as it is, divided by √v, its sign, or singular values near 1.
    shape: ClassVar[Literal["identity", "inverse root", "sign", "spectral", "unknown"]] = "unknown"
    #: Decay beside the update, inside the gradient, or none, at constant norm.
    decay: ClassVar[Literal["decoupled", "coupled", "none", "unknown"]] = "unknown"

    #: Decay spares the coordinates that an update lengthens.
    cautious: ClassVar[bool] = False
    #: Without decay the weights never come to rest.
    needs_decay: ClassVar[bool] = True

    lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        """Validate what is common, by name; a subclass calls this first and adds its own bounds."""
        self._set("lr", positive("lr", self.lr))
        self._set("weight_decay", nonnegative("weight_decay", self.weight_decay))
        for name, normalise in _COMMON.items():
            if name in self._fields():
                self._set(name, normalise(getattr(self, name)))
        if "betas" in self._fields():
            default: Any = next(field.default for field in fields(self) if field.name == "betas")
            self._set("betas", several_betas(getattr(self, "betas", None), len(default)))
        check_decay(self.lr, self.weight_decay, self.decay_limit, self._decay_rule())

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        """Scalars for `update` at steps ``step`` (counted from 1), each a float or an array like ``step``."""
        raise InvalidInput(self.refusal())

    @classmethod
    def examples(cls) -> tuple[Optimizer, Optimizer]:
        """A gentle and a strong setting that settle within some thousand steps; what `rotsim verify` runs."""
        raise NotImplementedError

    @property
    def averages(self) -> tuple[float, ...]:
        """Decay β of every exponential average it keeps, that of the gradient first; 0 alone for none."""
        plain = self.plain
        if "betas" in plain._fields():
            found: tuple[float, ...] = getattr(plain, "betas", ())
            return found
        return (getattr(plain, "momentum", 0.0),)

    @property
    def settles(self) -> bool:
        """Whether it has an equilibrium."""
        return self.weight_decay > 0 or not self.needs_decay

    @property
    def memory_steps(self) -> float:
        """Steps that its slowest average remembers."""
        return 1 / (1 - max(self.averages))

    @property
    def schedule_note(self) -> str:
        """One sentence on a schedule of its own, whose end its equilibrium takes for granted; empty without one."""
        return ""

    @property
    def beta1(self) -> float:
        """Decay of the average that its update is made of: β1, or SGD's momentum."""
        return self.averages[0]

    def with_beta1(self, beta1: float) -> Optimizer:
        """The same optimizer with another decay of that average."""
        changed: Any = {"betas": (beta1, *self.averages[1:])} if "betas" in self._fields() else {"momentum": beta1}
        return replace(self, **changed)

    @property
    def decay_limit(self) -> float:
        """Bound that lr·weight_decay must stay below."""
        return 1.0 if self.decay == "decoupled" else inf

    def _decay_rule(self) -> str:
        return DECOUPLED_RULE

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        """RMS angle per step to leading order, for any rates, by which its rotational variant turns.

        `InvalidInput` where it depends on the gradient.
        """
        if not hasattr(self, "update"):
            raise InvalidInput(self.refusal())
        raise InvalidInput(
            f"the rotation of {self.label} depends on the gradient's size, so it has none of its own; "
            "use AdamW, SGDM or Lion"
        )

    @property
    def plain(self) -> Optimizer:
        """The optimizer whose updates these are: itself, or the one that a variant takes its updates from."""
        return self

    @property
    def min_dim(self) -> int:
        """The shortest neuron that it can move: as many directions as its update tells apart."""
        return 2

    def refusal(self) -> str:
        """One line that says that it is only measured."""
        return f"rotsim has no theory for {self.label}"

    def with_rates(self, lr: float, weight_decay: float) -> Optimizer:
        """The same optimizer with another learning rate and weight decay."""
        return replace(self, lr=lr, weight_decay=weight_decay)

    def coefficient_table(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
        """`coefficients` as one float64 array of shape (len(step), at least N_COEFFICIENTS), zero-padded."""
        columns = self.coefficients(step, lr, weight_decay)
        table = np.zeros((len(step), max(N_COEFFICIENTS, len(columns))))
        for column, values in enumerate(columns):
            table[:, column] = values
        return table

    def to_dict(self) -> dict[str, Any]:
        """Name and hyperparameters, JSON-serialisable."""
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}

    def describe(self) -> str:
        """One line: ``AdamW(lr=0.001, weight_decay=0.1, ...)``."""
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{self.label}({values})"

    @classmethod
    def _fields(cls) -> set[str]:
        """Names of its hyperparameters."""
        return {field.name for field in fields(cls)}

    def _set(self, name: str, value: Any) -> None:
        """Store a normalised value during ``__post_init__`` of a frozen dataclass."""
        object.__setattr__(self, name, value)


def several_betas(value: Any, count: int) -> tuple[float, ...]:
    """Validate ``betas``: so many numbers in [0, 1)."""
    rule = f"be {'three' if count == 3 else 'two'} numbers in [0, 1)"
    given = sequence("betas", value, rule)
    require(len(given) == count, "betas", rule, value)
    return tuple(share(f"betas[{place}]", beta) for place, beta in enumerate(given))


def beta_pair(value: Any) -> tuple[float, float]:
    """Validate ``betas`` of an optimizer that has two."""
    beta1, beta2 = several_betas(value, 2)
    return beta1, beta2


_COMMON: dict[str, Callable[[Any], Any]] = {
    "eps": lambda value: nonnegative("eps", value),
    "momentum": lambda value: share("momentum", value),
}


def filled(beta: float, step: Any) -> Any:
    """Share of an exponential average's weight that `step` values have: 1 - beta**step, as bias correction divides by.

    By expm1: powers of many steps underflow, which the processor takes twenty times as long for.
    """
    return -np.expm1(step * (log(beta) if beta > 0 else -inf))


def matrix_rows(optimizer: Optimizer, rows: int | None, dim: int) -> int | None:
    """How many neurons make one matrix, checked; None where an optimizer does not act on matrices.

    Parameters
    ----------
    optimizer : Optimizer
    rows : int or None
        None stands for as many as `dim`, a square matrix.
    dim : int
        Columns.

    Raises
    ------
    InvalidInput
        If there are fewer than two, or the optimizer does not act on matrices.
    """
    if optimizer.acts_on == "matrix":
        return dim if rows is None else integer("rows", rows, low=2)
    if rows is not None:
        raise InvalidInput(
            f"`rows` is for an optimizer that acts on matrices, such as Muon; {optimizer.label} acts on each "
            f"{optimizer.acts_on} by itself, so leave it out"
        )
    return None


def check_decay(lr: float, weight_decay: float, limit: float = 1.0, rule: str = DECOUPLED_RULE) -> None:
    """Refuse a decay that flips the sign of the weights or blows them up."""
    way_out = f"Use weight_decay < {limit / lr:g} or a smaller lr"
    require(lr * weight_decay < limit, "lr * weight_decay", rule, lr * weight_decay, way_out)
