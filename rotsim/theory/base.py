"""What theory has to say of one optimizer, and where it is found: `theory_of`.

All that is known of an optimizer is one file, `rotsim/theory/NAME.py`, with one class that `theory_for` registers.
Mathematics that several optimizers share, or that is hard, stands in files named by subject; theories call it.
An optimizer without a theory is measured and simulated, and not predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from rotsim import closed_forms
from rotsim.errors import InvalidInput, instance
from rotsim.optimizers.base import Optimizer, matrix_rows
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

Method = Literal["exact", "leading"]
Spec = TypeVar("Spec", bound=Optimizer)
T = TypeVar("T", bound="type[Theory[Any]]")

SCALE_INVARIANT = -1  # homogeneity of E‖g‖² in E‖w‖² behind a normalisation

#: Optimizers whose theory is `rotsim/theory/NAME.py`, read when it is asked for. A new one is one name here.
_HERE = (
    "adamw", "adam_l2", "sgdm", "lion", "signum", "muon", "nadamw", "ademamix", "cautious", "rotational", "hyperball"
)  # fmt: skip
_THEORIES: dict[type[Optimizer], type[Theory[Any]]] = {}


class Course(NamedTuple):
    """Steps from a fresh optimizer state: ‖w_0‖², rates at each step, steps per window, and where results go.

    ``records``, shape (windows, 6), are sums over each window of E‖w‖², E[angle²] and E‖Δw‖², and of the declared
    relative errors of their square roots.
    """

    norm_squared: float
    lr: np.ndarray
    weight_decay: np.ndarray
    window: int
    records: np.ndarray


class Filling(NamedTuple):
    """What updates share with later ones while a fresh optimizer's averages fill, as a sum of modes.

    ``power`` is E‖u‖² over its final value. Each mode has ``weights`` when an update enters it, and keeps ``roots`` of
    it in a step. At every step both are multiplied by ``entered`` and ``faded``, and what the update sees of the mode
    by ``seen``: each to the power ``odd`` of the mode. ``alone``, times ``newest`` of the step, enters besides. The
    first five have shape (steps,), the others (modes,).
    """

    power: np.ndarray
    seen: np.ndarray
    entered: np.ndarray
    newest: np.ndarray
    faded: np.ndarray
    odd: np.ndarray
    weights: np.ndarray
    alone: np.ndarray
    roots: np.ndarray
    error: Any


class Theory(Generic[Spec]):
    """What is known of one optimizer with its hyperparameters. A subclass gives `white`, and what else it knows.

    What it leaves out is refused in a sentence. Attributes say how far the prediction holds for real gradients, which
    `rotsim.diagnosis` asks before it looks at agreement.

    Parameters
    ----------
    spec : Optimizer
    rows : int or None
        Neurons of one matrix, >= 2, for an optimizer that acts on matrices; None stands for a square one.
    """

    #: Hyperparameters that may be arrays in `white`, beside dim and the law's size: it then answers for each element.
    elementwise: ClassVar[tuple[str, ...]] = ()
    #: `white` takes betas that are arrays as well, and interpolates between some (`rotsim.theory.betas`).
    interpolated: ClassVar[bool] = False
    #: E‖g̃‖⁴/(E‖g̃‖²)² of bursting gradients that changes rotation or norm by 10 %; random walks with `Bursts`.
    burst_limit: ClassVar[float] = inf
    #: Bursts change the rotation, and the prediction takes their course into account (`burst_factors`).
    counts_bursts: ClassVar[bool] = False
    #: Steps are linear enough in gradients for a radial part of theirs to act as weight decay.
    feels_radial: ClassVar[bool] = True
    #: Where decay acts behind the mask of `Cautious`, steps in which updates are alike, >= 1; 0 where all decays.
    cautious: float = 0.0

    def __init__(self, spec: Spec, rows: int | None = None) -> None:
        self.spec, self.rows = spec, rows

    @property
    def lr(self) -> Any:
        """The learning rate that closed forms take: another where a share of each gradient is left out."""
        return self.spec.lr

    # --- at rest

    def check_size(self, dim: int) -> None:
        """Raise `InvalidInput` where so few weights have no theory."""
        if self.spec.plain is not self.spec:  # behind a hyperball or a mask
            required_theory(self.spec.plain, self.rows, dim).check_size(dim)

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        """Steady state for fan-in `dim` and white gradients with E‖g‖² = G·(E‖w‖²)^p."""
        raise NotImplementedError

    def updates(self, dim: int, law: GradientPower, norm_squared: Any) -> UpdateCovariance:
        """Autocovariance of a coordinate's update, decay aside, beside the noise of this E‖w‖²."""
        raise InvalidInput(f"the updates of {self.spec.label} are not known to theory as a sum of modes; simulate it")

    def at_rest(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        """Steady state under any law that the theory covers; `InvalidInput` under another."""
        if not law.white:
            raise InvalidInput(
                "`gradient` must be Isotropic or ScaleInvariant to be predicted under "
                f"{self.spec.label}; got one with {law}. Simulate it instead"
            )
        return self.white(dim, law, method)

    def few_weights(self, dim: Any, law: GradientPower, method: Method, state: SteadyState) -> Any:
        """Declared relative error of the state at rest by a finite fan-in, elementwise: 1/dim if no better is known."""
        return 1 / dim

    def met_and_bent(self) -> tuple[Any, Any]:
        """Q and ν of `rotsim.theory.few_weights`, which no rate changes; 0 where a step is linear in gradients."""
        return 0.0, 0.0

    # --- in time

    @property
    def has_course(self) -> bool:
        """Whether `advance` is known."""
        return type(self).advance is not Theory.advance

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        """Add second moments to the records of a course; returns the declared relative error of all but 1/dim."""
        raise InvalidInput(f"{self.spec.label} has an equilibrium in theory, but no course in time; simulate it")

    def lasting_decay(self, decay: np.ndarray) -> np.ndarray | None:
        """Share of ‖w‖ that a step at lr·weight_decay = `decay` takes in the long run; None if it depends on more."""
        return decay

    def decay_in_time(
        self, dim: int, law: GradientPower, lr: np.ndarray, weight_decay: np.ndarray, norm: np.ndarray
    ) -> np.ndarray | None:
        """The same at each step of a course, whose rates and norms these are; each of shape (steps,)."""
        return self.lasting_decay(lr * weight_decay)

    def decay_of(self, dim: Any, law: GradientPower, state: SteadyState) -> Any:
        """Share of a weight that decay, or a norm that is held, takes in a step in the long run, at rest; below 1."""
        return float(self.lasting_decay(np.array(self.spec.lr * self.spec.weight_decay)))  # type: ignore[arg-type]

    def filling(self, dim: int, law: GradientPower, steps: int) -> Filling:
        """The update while averages fill, which courses at a constant norm follow."""
        raise InvalidInput(f"{self.spec.label} at a constant norm has no course in theory; simulate it")

    # --- at a lag

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        """1 - the correlation of weights `lag` steps apart in equilibrium."""
        raise InvalidInput(f"the rotation of {self.spec.label} over many steps is not known; simulate it")

    # --- what real gradients change, to leading order

    @property
    def beyond_noise(self) -> str:
        """Why real gradients, which are no white noise, are beyond it, as a sentence; empty where they are not.

        Then the course under white noise is all that it has, and a diagnosis claims nothing.
        """
        return ""

    def correlation_factors(self, autocorrelation: np.ndarray) -> tuple[float, float]:
        """Rotation and norm under gradients with this autocorrelation (lags + 1,), over those under white noise."""
        power = self.average_power(autocorrelation)
        if self.beyond_noise or not power > 0:
            return float("nan"), float("nan")
        turned, grown = self.power_factors(power, power, SCALE_INVARIANT)
        return float(np.sqrt(turned)), float(np.sqrt(grown))

    def remembered(self, beta1: float, correlation: float) -> tuple[float, float]:
        """The same for AR(1) gradients, whose autocorrelation is correlation^lag; `beta1` is the spec's."""
        if self.beyond_noise:
            return float("nan"), float("nan")
        power = closed_forms.average_power_factor(beta1, correlation)
        turned, grown = self.power_factors(power, power, SCALE_INVARIANT)
        return float(np.sqrt(turned)), float(np.sqrt(grown))

    def signal_share(self, level: float) -> float:
        """What a part of the gradient that lasts is of what turns the weights; `level` is its share of the gradient.

        Where rotation in equilibrium does not depend on the memory of gradients, the gradient itself counts.
        """
        return level

    def average_power(self, autocorrelation: np.ndarray) -> float:
        """E‖m‖² under correlated gradients over that under white noise (`derivations.autocorrelated.power_factor`)."""
        given = np.asarray(autocorrelation, dtype=float)
        lag = np.arange(1, len(given))
        return 1 + 2 * float((self.spec.beta1**lag * given[1:]).sum())

    def power_factors(self, power: float, growth: float, homogeneity: int) -> tuple[float, float]:
        """Squared rotation and norm where E‖m‖² and the growth of ‖w‖² are so many times those of white noise."""
        return float(closed_forms.correlated_squared_rotation(power, growth)), growth

    def step_factors(self, autocorrelation: np.ndarray, power: float) -> tuple[float, float]:
        """Rotation and norm where the recorded average has so many times its power under white noise."""
        turned, grown = self.power_factors(power, power, SCALE_INVARIANT)
        return turned**0.5, grown**0.5

    def step_power(self, square_step: float, dim: int, around: float) -> float:
        """E(update)²/lr² of a coordinate as recorded, over that of white noise; `around` is θ‖w‖ predicted."""
        return self.spec.lr**2 * dim * square_step / around**2

    def radial_share(self, series: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
        """P/λ, from the recorded radial part over λ; `coordinate` is the RMS of a gradient coordinate, per neuron."""
        return series

    def balance_factor(self, radial: float, growth: float) -> float:
        """θ over that in equilibrium where P/λ is `radial` and ‖w‖² grows by `growth` of what decay takes."""
        pulled = radial + growth > -1
        return float(closed_forms.turn_while_growing(radial, growth)) if pulled else float("nan")

    def burst_factors(self, series: np.ndarray, judged: slice | None = None) -> tuple[float, float]:
        """Rotation and norm under a series of gradient norms, over those under steady ones; see `counts_bursts`."""
        raise InvalidInput(f"bursts are not part of the theory of {self.spec.label}")


def theory_for(kind: type[Optimizer]) -> Callable[[T], T]:
    """Register the `Theory` that it decorates as that of a spec class."""

    def register(theory: T) -> T:
        _THEORIES[kind] = theory
        return theory

    return register


def theory_of(optimizer: Optimizer, rows: int | None = None) -> Theory[Any] | None:
    """The theory of an optimizer, whose matrix has `rows` neurons; None for one that is only measured."""
    kind = type(optimizer)
    if kind not in _THEORIES and kind.name in _HERE:
        import_module(f"rotsim.theory.{kind.name}")
    found = _THEORIES.get(kind)
    return None if found is None else found(optimizer, rows)


def required_theory(optimizer: Any, rows: int | None = None, dim: int = 2) -> Theory[Any]:
    """`theory_of` an argument called `optimizer`; `InvalidInput` if it is no spec or has no theory.

    `rows` neurons of fan-in `dim` make a matrix, as `rotsim.optimizers.base.matrix_rows` checks them.
    """
    spec: Optimizer = instance("optimizer", optimizer, Optimizer, "a spec such as rotsim.AdamW(...)")
    found = theory_of(spec, matrix_rows(spec, rows, dim))
    if found is None:
        raise InvalidInput(spec.refusal())
    return found
