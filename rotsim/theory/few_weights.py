r"""What a finite fan-in C changes, to first order in 1/C and as ηλ → 0: declared, not corrected.

Isotropic noise leaves weights Gaussian where steps are linear in gradients, and nothing at that order is missing. Where
they are not, a weight's square and that of its next step go together, and the angle of a step is another mean:

* Under Adam steps are long for a while where v is small: by V = E[1/v]/E[1/√v]² - 1 in their squares. The average m
  that has led a weight far is still large then. For lags k, l >= 1, E[u_k u_l u_0²] - K_kl K_0 is 2(1+V) K_k K_l.
  Summed over them with the S of `rotsim.theory.walk`, the squared angle has less by 2VS·2S/(1+2S)·(1-a²)/C. Half of
  that is by ‖Δw‖²/‖w‖², half by what of Δw is along w. It is to first order in V, for a momentum longer than the memory
  of v. Strong decay shortens S by less than it seems. So the mean of S with and without decay is taken, times 1.5.
* A single long step has an excess kurtosis k, which its own ‖w‖² takes up: by k(1-a²)/C of the squared angle.
* Where decay passes through the momentum, m and w are independent at rest, as momentum and place are. Nothing is
  missing then.
* Signs have less kurtosis than a Gaussian (`derivations.finite_dim.wide_angle`).

In front of a normalisation layer a neuron's own weights shape its gradient
(`derivations.finite_dim.projected_variance` and after):

* A gradient's variance along coordinate i is 1 - ŵ_i². What a gradient moves w_i by is seen by the normalisation of
  later updates that still hold that gradient. So they overlap with w, and E‖w‖² grows by 2Q/C.
* Gradients are orthogonal to the weights of their step, updates are not: they hold older gradients, and are no linear
  function of them. ‖w‖² wavers by the share f of what it does under isotropic noise, 2/C. What that does to the
  gradient comes back through the averages. One step has the share ν of its power, u being no linear function.
* Under Adam+L2 a long weight has a small v, if v forgets before the weight moves: decay is stronger by 1/C.

Declared is (|Q| + f + ν/2)(1 + 3/C)/C, at least 1/C². The second order was not derived: its 3 is an estimate, the
kurtosis of a coordinate. `tests/test_declared.py` holds the whole to walks of few weights.

Where β1² > β2, a neuron that was short by chance runs away: momentum still holds its large gradients when v has
forgotten them. By `fed_back` f then has a factor F > 1. The second order is taken as that of the mean of ‖w‖⁻⁴.
Below C = 25 (F - 1) rare long neurons make up E‖w‖², and nothing bounds it. That power and the 25 are read off walks of
6 to 20 weights at 10 betas and decays. They held at 6 others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rotsim.theory.walk import UpdateCovariance

SECOND_ORDER = 3.0  # over the first, times C
LEAST_DECAY = 1e-30  # of ‖w‖² in a step; a smaller one changes nothing, and would be divided by
RUNAWAY = 25.0  # weights, times F - 1, below which a mean over neurons is that of few which ran away
HEAVIER = 1.5  # times VS, S being the geometric mean of that without decay and with it: as walks show
MOST_OF_ONE = 0.5  # share of a squared angle that single long steps take at most, as walks show
SETTLED = 0.9  # F up to which two averages leave the second order as it is, as walks of AdEMAMix show
MOST_WAVERING = 1e3  # times as much wavering, at most: a neuron's norm then runs away from the mean


def met_twice(held: Any, memory: Any, newest: Any = 0.0) -> Any:
    """How alike the weights are, on average, that one gradient moves in two of its steps: in [0, 1], elementwise.

    `held` is the mean correlation of the weights with those of all gradients in an exponential average, of `memory` in
    [0, 1). `newest` is the share of an update that the newest gradient has beside it
    (`derivations.finite_dim.met_twice`).
    """
    both = (2 * held - (1 - memory)) / (1 + memory)
    return newest**2 + (1 - newest) * (2 * newest * held + (1 - newest) * both)


def wavering(held: Any, twice: Any, linear: Any, kept: Any) -> Any:
    """f: the share of ‖w‖²'s wavering under isotropic noise that projection leaves, in [0, 1]; elementwise.

    `held` is as in `met_twice`. `twice` is that of the update; where it is not known, 1 makes f too large. `linear` is
    the share of the update's power in the long run that is a linear function of gradients. A step leaves `kept` of
    the weights. All are in [0, 1] (`derivations.finite_dim.wavering`).
    """
    cosine = np.clip(held, 0, 1) ** 2 / np.clip(twice, 1e-9, 1)
    across = 1 - np.clip(linear, 0, 1) * np.clip(cosine, 0, 1)
    single = (1 - kept**2) / (1 + kept**2)  # of the squares of steps themselves, which no projection takes
    return across + (1 - across) * single


def heavier_tails(dim: Any, kept: Any, noise: UpdateCovariance, lasting: Any, uneven: Any, heaviest: Any) -> Any:
    """What the angle of a step of Adam has less under isotropic noise, times C; elementwise.

    A step leaves `kept` of the weights. `noise` is the update's covariance, and `lasting` bounds VS. `uneven` is V of
    the module docstring, and `heaviest` bounds E u⁴/(E u²)².
    """
    lags = np.sqrt(noise.discounted_sum(1.0) * noise.discounted_sum(kept))
    met = np.minimum(HEAVIER * uneven * lags, lasting)
    return (1 - kept**2) * (met + np.clip(heaviest - 3, 0, MOST_OF_ONE * dim) / 2)


def lighter_tails(one_minus_cosine: Any, kept: Any) -> Any:
    """What the angle of a step by independent signs has more than that of Gaussian steps, times C; elementwise.

    `one_minus_cosine` is 1 - ρ > 0, and a step leaves `kept` of the weights. Their excess kurtosis is the -2 of a sign,
    times (1 - a²)/(1 + a²) (`derivations.finite_dim.wide_angle`).
    """
    cosine = 1 - one_minus_cosine
    angle = np.maximum(np.arccos(np.clip(cosine, -1, 1)), 1e-4)
    return (1 - kept**2) / (1 + kept**2) * abs(cosine) * (angle / np.sin(angle) - cosine) / (2 * angle**2)


def fed_back(kept: Any, momentum: Any, second: float | None) -> Any:
    """How much more ‖w‖² wavers since the gradient follows it: momentum and v see it late; elementwise.

    A step leaves `kept` of the weights, `momentum` of the average and `second` of v, which is None where nothing
    divides by the gradient's size. It is 1 if there were no such feedback, and at most 1000, also where it runs away.

    The stationary variance of `derivations.damped.neurons_differ`: the sum of the squares of an impulse's answer. That
    answer is rational in z, and has an integral of its square along the imaginary axis.

    G. C. Newton, L. A. Gould, J. F. Kaiser, "Analytical design of linear feedback controls" (1957), appendix E.
    """
    new = np.maximum(1 - kept**2, LEAST_DECAY)
    q_m, q_v = momentum**2, 0.0 if second is None else second
    m, v = 1 - q_m, 1 - q_v
    # The unit circle becomes the imaginary axis by z = (1 + s)/(1 - s); polynomials in s, constant first.
    slow, fast, back = (m, 1 + q_m), (v, 1 + q_v), _product((1.0, -1.0), (1.0, -1.0))
    fallen = new * (m + q_v) if second is not None else new * (2 - q_m)  # of ‖w‖² itself by the next step
    whole = _product((fallen, 2 - fallen), slow, fast)
    by_m = [new * q_m * m * part for part in _product(back, fast)]
    by_v = [new * q_v * v * part for part in _product(back, slow)]
    _, d_1, d_2, d_3 = (one + two - three for one, two, three in zip(whole, by_m, by_v, strict=True))
    d_0 = new * m * v * (1 if second is not None else 2)  # rounded, the sum would be nothing but what cancels
    c_0, c_1, c_2 = _product(slow, fast)
    settled = d_1 * d_2 - d_0 * d_3
    settles = np.minimum(np.minimum(d_1, d_2), np.minimum(d_3, settled)) > 0
    power = c_2**2 * d_0 * d_1 + (c_1**2 - 2 * c_0 * c_2) * d_0 * d_3 + c_0**2 * d_2 * d_3
    found = new * (2 - new) * power / np.where(settles, d_0 * d_3 * settled, 1.0)
    return np.where(settles, np.minimum(found, MOST_WAVERING), MOST_WAVERING)[()]


def _product(*factors: Any) -> list[Any]:
    """Coefficients of a product of polynomials, constant first; elementwise."""
    found = [1.0]
    for factor in factors:
        longer: list[Any] = [0.0] * (len(found) + len(factor) - 1)
        for i, one in enumerate(found):
            for j, other in enumerate(factor):
                longer[i + j] = longer[i + j] + one * other
        found = longer
    return found


def declared(dim: Any, met: Any, wavers: Any, bent: Any, late: Any = 1.0, runaway: Any = None) -> Any:
    """The declared relative error of norm and rotation for `dim` >= 2 weights; elementwise.

    The others are Q, f, ν (below 0 it counts as 0) and F of the module docstring. `runaway` is the number of weights
    below which neurons run away; None stands for that of one average. The error is at least 1/C², the
    second order where the first is nothing. Where a neuron runs away it is infinite
    (`derivations.finite_dim.met_again` and after it).
    """
    first = abs(met) + wavers + np.maximum(0.0, bent) / 2
    held = late <= (1.0 if runaway is None else SETTLED)
    least = RUNAWAY * (late - 1) if runaway is None else runaway
    short = np.maximum(dim - 4.0, 0.0)  # E‖w‖⁻⁴ (E‖w‖²)² of Gaussian weights is C²/((C-2)(C-4))
    bounded = (held | (short > 0)) & (dim >= least)
    further = np.where(held, 1 + SECOND_ORDER / dim, dim**2 / ((dim - 2.0) * np.where(bounded, short, 1.0) + held))
    return np.where(bounded, np.maximum(first * further, 1 / dim) / dim, np.inf)[()]
