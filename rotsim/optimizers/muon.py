"""Muon: momentum whose singular values are brought to one, with decoupled weight decay, as in torch.optim.Muon."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, repeat
from math import sqrt
from numbers import Real
from typing import Any

import numpy as np

from rotsim.errors import InvalidInput, choice, flag, integer, is_a, real, require, sequence
from rotsim.optimizers.base import TINY, Optimizer

Polynomial = tuple[float, float, float]

JORDAN: Polynomial = (3.4445, -4.775, 2.0315)
_SAFETY = 1.01  # by which its authors divide singular values, but for the last polynomial
#: Coefficients of Polar Express (Amsel et al. 2025), one triple an iteration, the last one repeated. With 20 steps
#: the update is the polar factor.
POLAR_EXPRESS: tuple[Polynomial, ...] = (
    *(
        (a / _SAFETY, b / _SAFETY**3, c / _SAFETY**5)
        for a, b, c in (
            (8.28721201814563, -23.595886519098837, 17.300387312530933),
            (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
            (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
            (3.3184196573706015, -2.488488024314874, 0.51004894012372),
            (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
            (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
            (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
        )
    ),
    (1.875, -1.25, 0.375),
)

SCALES = ("original", "match_rms_adamw", "spectral")
_TRIPLES = "be three numbers, or a sequence of such triples, one an iteration"


def orthogonalise(d: np.ndarray, eps: float, polynomials: np.ndarray) -> np.ndarray:
    """The matrix d with every singular value σ replaced by polynomials of σ/‖d‖, by matrix products alone.

    Parameters
    ----------
    d : ndarray, shape (rows, columns)
    eps : float
        Least divisor.
    polynomials : ndarray, shape (iterations, 3)
        (a, b, c) of a s + b s³ + c s⁵.

    Returns
    -------
    ndarray, shape (rows, columns)
    """
    tall = d.shape[0] > d.shape[1]
    x = d.T if tall else d
    x = x / max(np.linalg.norm(x), eps, d.dtype.type(TINY))
    for a, b, c in polynomials:
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram.T)) @ x  # a product with its own transposed costs half
    return x.T if tall else x


def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    decay, lr, momentum, nesterov, eps = c[:5]
    m = g + momentum * (m - g)
    d = g + momentum * (m - g) if nesterov else m
    return -decay * w - lr * orthogonalise(d, eps, c[5:].reshape(-1, 3)), m, v


@dataclass(frozen=True)
class Muon(Optimizer):
    r"""Muon as PyTorch has it: an average of gradients whose singular values are brought to about 1.

    .. math::
        m_t &= \mu m_{t-1} + (1-\mu) g_t, \qquad
        d_t = \mu m_t + (1-\mu) g_t \ \text{(Nesterov) or}\ m_t \\
        w_t &= (1 - \eta\lambda)\, w_{t-1} - \eta\, c\, \varphi(d_t/\|d_t\|_F)

    Here w is the matrix of a layer, with a neuron in each row. φ acts on singular values, as `ns_steps` polynomials
    :math:`a s + b s^3 + c s^5` one after the other.

    Parameters
    ----------
    lr : float
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.
    momentum : float
        μ in [0, 1). Without damping, m ← μ m + g, the update is the same, since d is divided by its norm.
    nesterov : bool
        Whether the newest gradient is mixed in once more.
    ns_coefficients : (float, float, float), or a sequence of those
        (a, b, c) of every iteration, each finite. Or of each, the last one repeated, such as
        `rotsim.optimizers.muon.POLAR_EXPRESS`.
    ns_steps : int
        Iterations, >= 1 and <= 99. 20 of POLAR_EXPRESS give the polar factor.
    eps : float
        Least value that d is divided by, >= 0.
    adjust_lr_fn : {None, "original", "match_rms_adamw", "spectral"}
        The factor c of the update. "original", or None: √max(1, rows/columns). "match_rms_adamw": 0.2 √max(rows,
        columns). "spectral": √(rows/columns). Decay is without it.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    Every function that takes a matrix optimizer has ``rows``: how many neurons make one matrix. The iteration is in the
    format of the walk, where PyTorch takes bfloat16 (Jordan et al. 2024; derivations.muon).
    """

    name = "muon"
    label = "Muon"
    acts_on = "matrix"
    update = staticmethod(_update)
    shape, decay = "spectral", "decoupled"

    lr: float
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    ns_coefficients: Any = JORDAN
    ns_steps: int = 5
    eps: float = 1e-7
    adjust_lr_fn: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("nesterov", flag("nesterov", self.nesterov))
        self._set("ns_coefficients", _coefficients(self.ns_coefficients))
        self._set("ns_steps", integer("ns_steps", self.ns_steps, low=1, high=100))
        if self.adjust_lr_fn is not None:
            self._set("adjust_lr_fn", choice("adjust_lr_fn", self.adjust_lr_fn, SCALES))

    @classmethod
    def examples(cls) -> tuple[Muon, Muon]:
        return cls(lr=0.02, weight_decay=0.1), cls(lr=0.05, weight_decay=0.4, momentum=0.9)

    @property
    def polynomials(self) -> tuple[Polynomial, ...]:
        """(a, b, c) of each iteration."""
        given = self.ns_coefficients
        triples = given if isinstance(given[0], tuple) else (given,)
        endless = chain(triples, repeat(triples[-1]))
        return tuple(triple for triple, _ in zip(endless, range(self.ns_steps), strict=False))

    def update_factor(self, rows: int, columns: int) -> float:
        """The factor c of `adjust_lr_fn`."""
        if self.adjust_lr_fn == "match_rms_adamw":
            return 0.2 * sqrt(max(rows, columns))
        ratio = rows / columns
        return sqrt(ratio if self.adjust_lr_fn == "spectral" else max(1.0, ratio))

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        """For a matrix whose `update_factor` is 1."""
        return lr * weight_decay, lr, self.momentum, float(self.nesterov), self.eps, *chain(*self.polynomials)

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        raise InvalidInput(f"{self.label} turns matrices and has no rotational variant; use AdamW, SGDM or Lion")


def _coefficients(given: Any) -> tuple[Any, ...]:
    """A triple of numbers, or a tuple of triples."""
    entries = sequence("ns_coefficients", given, _TRIPLES)
    if entries and not is_a(entries[0], Real):
        return tuple(_triple(f"ns_coefficients[{i}]", entry) for i, entry in enumerate(entries))
    return _triple("ns_coefficients", given)


def _triple(name: str, given: Any) -> Polynomial:
    numbers = sequence(name, given, _TRIPLES)
    require(len(numbers) == 3, name, _TRIPLES, given)
    a, b, c = (real(f"{name}[{i}]", number) for i, number in enumerate(numbers))
    return a, b, c
