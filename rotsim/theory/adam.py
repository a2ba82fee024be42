"""What AdamW and Adam+L2 share: an average of gradients over the root of one of their squares, which stays random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, isfinite, log, sqrt
from typing import Any, ClassVar, TypeVar

import numpy as np

from rotsim import closed_forms
from rotsim.gradients import GradientPower
from rotsim.optimizers import AdamL2, AdamW
from rotsim.theory import few_weights
from rotsim.theory.adam_in_time import carried, state
from rotsim.theory.adam_parts import parts
from rotsim.theory.base import Course, Filling, Method
from rotsim.theory.betas import adam_covariance, heaviest, mean_inverse_root, mean_response, uneven_pace
from rotsim.theory.correlated_moment import correlated_update
from rotsim.theory.damped import tables
from rotsim.theory.departures import Departing
from rotsim.theory.fixed_point import noise_variance, settled
from rotsim.theory.held import see_as
from rotsim.theory.memory import CorrelatedUpdate, projection, remembering
from rotsim.theory.own_second_moment import own_second_moment
from rotsim.theory.rare_updates import fourth
from rotsim.theory.record import in_parts
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance

AdamSpec = TypeVar("AdamSpec", AdamW, AdamL2)

QUADRATURE = 1e-6  # relative error of the grid in ζ
MEMORIES_TO_FILL = 25.0  # e^-25 of what a fresh optimizer lacks is left
LEAST_BETA2 = 1e-12  # β2 below this is as good as 0
_OF_SHIFTED_V = 0.56  # what AdamW's norm and rotation may be off by, in the units of `Adam._neglected`
MAX_SWEEPS = 30  # of v and of what depends on it
SWEEP_TOLERANCE = 1e-13  # relative change of v at which they end


class Adam(Departing[AdamSpec]):
    """AdamW or Adam+L2."""

    #: The compiled course of `rotsim.theory.adam_in_time`.
    follow: ClassVar[Callable[..., Any]]
    #: Coordinates are followed in parts by |w| while decay fills v.
    splits: ClassVar[bool] = False
    #: What an update takes of the newest gradient besides, and of the average, in the long run.
    lasting_shares: Any = (0.0, 1.0)
    #: Moments that the course keeps.
    moments: ClassVar[int] = 6

    @property
    def betas(self) -> tuple[Any, Any]:
        """β1 and β2: of the average that makes the update, or the first of them, and of v."""
        return self.spec.betas

    # --- its update, for gradients of unit variance

    def noise(self, eps: Any = 0.0) -> UpdateCovariance:
        """Autocovariance of the update beside an ε in deviations of the gradient."""
        return adam_covariance(*self.spec.betas, eps)

    def updates(self, dim: int, law: GradientPower, norm_squared: Any) -> UpdateCovariance:
        return self.noise(self.spec.eps / np.sqrt(noise_variance(law, dim, norm_squared)))

    def response(self) -> tuple[Any, Any]:
        """Size and memory of its answer to a lasting gradient."""
        return mean_response(*self.spec.betas)

    def linear_power(self) -> Any:
        """E u² if v were constant."""
        beta1, _ = self.spec.betas
        return (1 - beta1) / (1 + beta1)

    def held(self, decay: Any) -> Any:
        """Mean correlation of the weights with those of all gradients in the update, for a share that decays."""
        return closed_forms.decoupled_held(1.0, decay, self.spec.betas[0])

    def twice(self, decay: Any) -> Any:
        """`few_weights.met_twice` of the update."""
        return few_weights.met_twice(self.held(decay), self.spec.betas[0])

    def met_again(self) -> Any:
        """Q of `rotsim.theory.few_weights`."""
        return closed_forms.adam_met_again(*self.spec.betas)

    # --- in time

    def fading(self) -> float:
        """What the distance of NAdamW's momentum from β1 keeps in a step; others have none."""
        return 0.0

    def second_average(self) -> tuple[float, float]:
        """β3 and α of AdEMAMix; others have none."""
        return 0.0, 0.0

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        o, (beta1, beta2) = self.spec, self.betas
        adam_covariance(beta1, beta2)  # refuses betas at which the update has no variance
        by: tuple[np.ndarray, ...] = parts(float(dim)) if self.splits else (np.zeros(1), np.ones(1), np.ones(1))
        strongest = np.maximum.accumulate(course.weight_decay[::-1])[::-1]
        fixed = (
            beta1, max(beta2, LEAST_BETA2), o.eps, self.fading(), self.second_average(), tables(), *by, strongest,
            state(len(by[0]), course.norm_squared / dim, type(self).moments), float(dim), law.scale_squared,
            float(law.homogeneity), self.cautious, *course[1:],
        )  # fmt: skip
        in_parts(lambda *part: type(self).follow(*part, *fixed), carried(course.norm_squared), course)
        return QUADRATURE

    def shares(self, step: Any) -> tuple[Any, Any]:
        """What an update takes of the newest gradient besides, and of the average; elementwise in steps >= 1."""
        return 0.0, 1 / (1 - self.spec.betas[0] ** step)

    def modes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """Of the average: weights, those of the newest gradient alone, roots, and what is declared of them."""
        noise = adam_covariance(*self.spec.betas)
        return noise.weights, np.zeros_like(noise.weights), noise.roots, noise.error

    def filling(self, dim: int, law: GradientPower, steps: int) -> Filling:
        """By its own course without decay, v random as it is: E u² of a coordinate at each step, and E w·u.

        What a young v changes of E u² is a factor of the update, and one of what it sees of older ones. Both are such
        that E w·u is that of the course (`rotsim.theory.held.see_as`, `derivations.nadamw.entering`). ε is left out.
        """
        (beta1, beta2), step = self.spec.betas, np.arange(1.0, steps + 1)
        filling = min(steps, int(np.ceil(MEMORIES_TO_FILL / (1 - max(beta1, beta2, 0.5)))))
        one, none, records = np.ones(filling), np.zeros(filling), np.zeros((filling, 6))
        self.advance(1, GradientPower(1.0, 0), Course(1.0, one, none, 1, records))
        (own, held), (last_own, last_held) = self.shares(step), self.lasting_shares
        powers = adam_covariance(0.0, beta2).lag_0, adam_covariance(beta1, beta2).lag_0
        length = closed_forms.nadamw_filling(beta1, step, own, held, *powers)
        young = np.append(records[:, 2] / length[:filling], np.ones(steps - filling))
        entered, newest = young * held * (1 - beta1 ** (2 * step)), young * own * (1 - beta1)
        lag_0 = closed_forms.nadamw_filling(beta1, inf, last_own, last_held, *powers)
        weights, alone, roots, error = self.modes()
        odd, by = np.ones_like(roots), (weights / lag_0, alone / lag_0, roots)
        square, moved = records[:, 0], records[:, 2]
        met = (np.append(1.0, square)[:filling] + moved - square) / (2 * lag_0)
        see_as(met, np.zeros_like(roots), held, entered, newest, odd, *by)
        return Filling(young * length / lag_0, held, entered, newest, np.ones(steps), odd, *by, error)

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        if np.max(beta2) < LEAST_BETA2 and np.max(beta1) > 0:  # u has no variance without ε
            return 0.0, 1.0, 1.0
        noise, (response, _) = self.noise(), self.response()
        decay = self.decay_of(dim, law, state)
        linear = response**2 / (noise.lag_0 * (1 + 2 * noise.discounted_sum(1.0)))
        wavers = few_weights.wavering(self.held(decay), self.twice(decay), linear, 1 - decay)
        met, bent = self.met_and_bent()
        return met, wavers, bent

    def in_free_noise(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        """Steps are long for a while in single weights: where the average is large, and where v is small."""
        kept, beta2 = 1 - self.decay_of(dim, law, state), self.betas[1]
        lasting = np.maximum.reduce([root / (1 - root) for root in self.momenta()])
        if np.max(beta2) >= LEAST_BETA2:
            return 0.0, few_weights.heavier_tails(dim, kept, self.noise(), lasting, self.uneven(), self.heaviest()), 0.0
        if np.max(lasting) > 0:  # u has no variance without ε
            return 0.0, dim * (1 - kept**2), 0.0
        return 0.0, few_weights.lighter_tails(state.one_minus_cosine, kept), 0.0

    def momenta(self) -> tuple[Any, ...]:
        """Decay of each average that the update is made of."""
        return (self.betas[0],)

    def heaviest(self) -> Any:
        """Bound of E u⁴/E[u²]², >= 3."""
        beta2, roots = self.betas[1], self.momenta()
        if np.ndim(beta2):
            return np.maximum.reduce([heaviest(root, beta2) for root in roots])
        return max(3.0, *(fourth(root, beta2, 0.0) for root in roots))

    def uneven(self) -> Any:
        """`rotsim.theory.second_moment.uneven_pace`."""
        return uneven_pace(*self.betas)

    def met_and_bent(self) -> tuple[Any, Any]:
        return self.met_again(), 1 - self.response()[0] ** 2 * self.linear_power() / self.noise().lag_0

    def decay_of(self, dim: Any, law: GradientPower, state: SteadyState) -> Any:
        """Share of a weight that decay takes in a step, below 1."""
        return self.spec.lr * self.spec.weight_decay

    # --- departures

    def departed(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """ε takes of the update what it takes under white noise of the size that the larger norm leads to.

        Neglected is that the spread of v, and a mean inside v, are felt less beside ε. Under Adam+L2 ε lessens the
        decay as well, which is not taken into account at all.
        """
        o = self.spec
        if law.radial or method == "leading" or o.eps == 0:
            return super().departed(dim, law, method, white)
        bare, noise = type(self)(replace(o, eps=0.0)), replace(law, signal=0.0, correlation=0.0)
        plain = bare.white(dim, noise, "exact")
        found = bare.departed(dim, law, "exact", plain)
        growth, turn = found.norm_squared / plain.norm_squared, found.one_minus_cosine / plain.one_minus_cosine
        felt = white
        if o.decay == "decoupled" and law.homogeneity:
            felt = self.white(dim, replace(noise, scale_squared=noise.scale_squared * growth**law.homogeneity), "exact")
        beside = o.eps / sqrt(noise_variance(law, dim, growth * felt.norm_squared))
        steady = o.decay == "decoupled" or (law.correlation and not law.homogeneity)  # both know the noise that v has
        unequal = 1 - o.betas[1] if steady else 1.0
        change = max(unequal * abs(log(growth)), unequal * abs(log(turn)), min(1.0, self._mean_in_v(law)))
        moved = found.update_squared
        if moved is not None:
            moved *= felt.norm_squared * felt.one_minus_cosine / (plain.norm_squared * plain.one_minus_cosine)
        return SteadyState(
            growth * felt.norm_squared,
            turn * felt.one_minus_cosine,
            found.relaxation_steps * white.relaxation_steps / plain.relaxation_steps,
            found.model_error - plain.model_error + felt.model_error + self.taken_by_eps(beside) * change,
            moved,
        )

    def _mean_in_v(self, law: GradientPower) -> float:
        """What a mean adds to v, in units of the noise. What is projected lies across the weights."""
        o, power = self.spec, law.signal**2
        if not (power and law.homogeneity):
            return power
        aligned = closed_forms.signal_alignment(power / closed_forms.adamw_takeover(o.lr, o.weight_decay))
        return power * (1 - float(aligned))

    def _neglected(
        self, moving: float, pull: float, projected: float, correlation: float, update: CorrelatedUpdate
    ) -> float:
        """Error of a walk with the pulls of decay and projection, and a share `moving` of the gradient's power.

        Under AdamW v is large where w is, as far as w, or the gradients that it follows, last while v forgets. It is
        felt more where updates answer to a shift by more than they vary. Where nearly all of a gradient is projected
        away, an error of that counts for what is left. Power and factor are fitted to walks of drawn settings, most of
        which are less off, some by more than five times. Where a pull outwards nearly makes up for decay, the norm
        that it leaves is off by as much more.

        Under Adam+L2 the ratio to white noise, which has a pull as well, leaves what the wavering of v by itself does,
        at most `moving`. Orders of magnitude: no factor.
        Where what is projected exceeds the decay, the norm is off by as much more of what large weights feel of their
        own v (`own_second_moment`). The norm goes with the cube root of growth over decay, squared.
        """
        o = self.spec
        if o.decay == "coupled":
            spread = 2 * (1 - o.betas[1]) / (1 + o.betas[1])  # of v, relative variance: squares are alike by φ^2k
            wavering = moving * min(1.0, spread * float(closed_forms.average_power_factor(o.betas[1], correlation**2)))
            own = own_second_moment(o.lr, (pull + projected) / update.response, 1.0, o.betas, correlation)
            return max(wavering, abs(own) * max(0.0, projected / pull) / 3)
        decay, pulled = o.lr * o.weight_decay, o.lr * (pull + projected)
        lasting = 1 - min(decay + pulled, 1 - correlation)  # what is left of weights in a step, or of gradients
        alike = (1 - o.betas[1]) / (1 - o.betas[1] * lasting**2)
        answered = max(1.0, update.response / sqrt(float(update.covariance[0])))
        felt = _OF_SHIFTED_V * (alike * moving) ** 0.75 * answered / (1 - moving) if moving < 1 else inf
        return float(np.expm1(felt)) * sqrt(decay / (decay + min(0.0, pulled)))

    def taken_by_eps(self, beside: float) -> float:
        """Share of the update that an ε of so many deviations of the gradient takes."""
        o = self.spec
        return beside / (1 + beside) if o.betas[1] == 0 else beside / (1 / mean_inverse_root(*self.betas) + beside)

    def correlated_update(self, correlation: float) -> CorrelatedUpdate:
        """The update under AR(1) gradients."""
        return correlated_update(*self.spec.betas, correlation)

    def correlated(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        if method == "leading":
            return self.by_factors(law, white)
        found = self._remembering(dim, law, law.correlation, white.norm_squared)
        plain = self._remembering(dim, law, 0.0, white.norm_squared)
        return replace(
            white,
            norm_squared=white.norm_squared * (found.norm_squared / plain.norm_squared),
            one_minus_cosine=white.one_minus_cosine * (found.one_minus_cosine / plain.one_minus_cosine),
            model_error=white.model_error + found.model_error,
        )

    def _remembering(self, dim: int, law: GradientPower, correlation: float, start: float) -> SteadyState:
        """The walk under AR(1) gradients."""
        o = self.spec
        update = self.correlated_update(correlation)
        kept, decay = (1.0, o.weight_decay) if o.decay == "coupled" else (1 - o.lr * o.weight_decay, 0.0)

        def at(norm_squared: float) -> SteadyState:
            noise = noise_variance(law, dim, norm_squared)
            v = noise
            for _ in range(MAX_SWEEPS):
                pull = decay * update.response / sqrt(v)
                projected = projection(o.lr, pull, kept, correlation, update) if law.homogeneity else 0.0
                walk = remembering(o.lr, pull + projected, kept, correlation, update)
                if not isfinite(walk.norm_squared):
                    return SteadyState(inf, 2.0, model_error=inf)
                overlap = walk.overlap * noise / sqrt(v)  # E w·g, before projection
                along = overlap**2 * v / noise / walk.norm_squared if law.homogeneity else 0.0  # projected away
                # of λw, where it meets an overlap as this walk has it: else v might be negative
                power = decay**2 * (norm_squared / dim if law.homogeneity else walk.norm_squared * noise / v)
                before, v = v, noise - along + power + (0.0 if law.homogeneity else 2 * decay * overlap)
                if abs(v / before - 1) < SWEEP_TOLERANCE:
                    break
            error = self._neglected((along + power) / noise, pull, projected, correlation, update)
            return SteadyState(dim * walk.norm_squared * noise / v, walk.one_minus_cosine, model_error=error)

        norm_squared = settled(lambda given: at(given).norm_squared, start)
        return replace(at(norm_squared), norm_squared=norm_squared)
