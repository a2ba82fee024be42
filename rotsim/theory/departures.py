"""Equilibrium where the gradient is more than white noise: a persistent mean, a memory, or a radial part.

Each departure is reduced to a walk that is solved already (derivations.signal, .autocorrelated, .radial):

- A radial part is decay that passes through the momentum, under Adam without any other approximation.
- A mean adds a fixed part to the weights, about which noise walks. Where scale invariance projects the mean, the
  weights turn towards it, up to a cosine that one equation fixes. The rest of them feels a radial part.
- Bursts leave the rotation of averaging optimizers alone too. Lion's is `rotsim.theory.bursts`.
- A memory is `rotsim.theory.memory`. It changes every norm, Lion's rotation through one number, and that of Adam+L2
  through its norm. That of AdamW it changes by a few per cent at small β2, through the spread of v.

NAdamW and AdEMAMix, whose update is a sum of averages, are `rotsim.theory.filtered`.

In 60 random settings of each optimizer and kind, norm, rotation and update were held to walks. Beyond 3 standard errors
they are at most 0.3 % off under AdamW, Adam+L2 and SGDM, and 2.2 % under Lion. No error is more than 1.02 of the
declared one. That is experiments/results/departures.md, which `python -m experiments.departures` writes.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from rotsim import closed_forms
from rotsim.errors import InvalidInput, NoEquilibrium
from rotsim.theory import few_weights
from rotsim.theory.base import Method, Spec, Theory
from rotsim.theory.fixed_point import bracketed_root, noise_variance, settled
from rotsim.theory.steady import SteadyState

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

DIVERGED = SteadyState(inf, 2.0, decay=0.0)


class Departing(Theory[Spec]):
    """The theory of an optimizer whose answer to a small lasting gradient is known, and with it these departures."""

    def bursting(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        """Under gradients whose size follows a series."""
        raise InvalidInput(
            "`gradient` may be Bursts for Lion only, whose equilibrium bursts change; the rotation of AdamW and "
            "SGDM does not depend on them (predict it with ScaleInvariant), norms and Adam+L2 can be simulated"
        )

    def correlated(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """Under AR(1) gradients; `white` is the same without their memory."""
        raise NotImplementedError

    def beside_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> tuple[float, ...]:
        """Squared norm of the part of the weights that a constant mean holds; E‖w‖² and 1 - ρ of the noise about it."""
        raise NotImplementedError

    def walk(self, noise: float, mean: float, decayed: float, radial: float) -> SteadyState:
        """One coordinate under noise and a radial part: E w², 1 - ρ, and the decay in units of a lasting gradient.

        `noise` is the variance of a coordinate of the gradient. `mean` is the mean square of what `left_of_mean`
        leaves, and `decayed` that of λw and the radial part.
        """
        raise NotImplementedError

    def left_of_mean(self, signal: float, noise: float, across: float) -> float:
        """Mean square of a coordinate's mean gradient, of which `across` is across the weights."""
        return signal**2 * noise * across

    def declared_signal(
        self, law: GradientPower, dim: int, norm_squared: float, walk: SteadyState, aligned: float
    ) -> float:
        """What `projected_mean` neglects."""
        return 0.0

    def gain(self, noise: float) -> float:
        """Mean update per lasting gradient to leading order, beside noise of this variance."""
        return 1 / sqrt(noise)

    def pulled(self, noise: float, radial: float) -> SteadyState:
        """One coordinate of a walk with decoupled decay under a radial part; as `walk`, for pulls of any strength."""
        raise NotImplementedError

    def at_rest(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        if law.white:
            return self.white(dim, law, method)
        if law.series is not None:
            return self.bursting(dim, law, method)
        if bool(law.signal) + bool(law.correlation) + bool(law.radial) != 1:
            raise InvalidInput(f"one of signal, correlation and radial can be predicted at a time; got {law}")
        white = self.white(dim, replace(law, signal=0.0, correlation=0.0, radial=0.0), method)
        found = self.departed(dim, law, method, replace(white, angle_factor=1.0))
        if white.angle_factor < 1:  # rare large updates turn the weights as under white noise, about
            error = found.model_error + 1 - white.angle_factor
            found = replace(found, angle_factor=white.angle_factor, model_error=error)
        return found

    def few_weights(self, dim: Any, law: GradientPower, method: Method, state: SteadyState) -> Any:
        if method == "leading" or not law.white:
            return 1 / dim
        found = (self.in_few_weights if law.homogeneity else self.in_free_noise)(dim, law, state)
        return few_weights.declared(dim, *found)

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        """Q, f and ν of `rotsim.theory.few_weights` behind a normalisation layer, and F where it is not 1."""
        raise NotImplementedError

    def in_free_noise(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        """The same under isotropic noise, where weights are Gaussian if steps are."""
        return 0.0, 0.0, 0.0

    def departed(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """One departure, with what is known of white noise of the same size."""
        if law.radial:
            return self.radial(dim, law, method, white)
        if law.correlation:
            return self.correlated(dim, law, method, white)
        return (self.projected_mean if law.homogeneity else self.constant_mean)(dim, law, method, white)

    def by_factors(self, law: GradientPower, white: SteadyState) -> SteadyState:
        """AR(1) gradients to leading order: E‖m‖², and growth by the spectral density at 0, but for projected ones."""
        power = closed_forms.average_power_factor(self.spec.beta1, law.correlation)
        growth = power if law.homogeneity else closed_forms.average_power_factor(1.0, law.correlation)
        turned, grown = self.power_factors(power, growth, law.homogeneity)
        norm_squared, half = white.norm_squared * grown, white.one_minus_cosine * turned
        return replace(white, norm_squared=norm_squared, one_minus_cosine=half)

    # --- radial part: decay through the momentum (derivations.radial) ---

    def radial(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """Under gradients with a part along the weights."""
        o = self.spec
        if o.decay == "coupled":  # it is a radial gradient already
            total = o.weight_decay + law.radial
            if total <= 0:
                raise self._outward(law)
            return self._with_decay(total).white(dim, replace(law, radial=0.0), method)

        def at(norm_squared: float) -> SteadyState:
            noise = noise_variance(law, dim, norm_squared)
            if method == "exact":
                return self.pulled(noise, law.radial)
            gain = self.gain(noise)
            total = o.weight_decay + law.radial * gain
            if total <= 0:
                return DIVERGED
            known = self._with_decay(total).white(1, replace(law, scale_squared=1.0, homogeneity=0, radial=0.0), method)
            return replace(known, decay=o.weight_decay / gain)

        try:
            norm_squared = settled(lambda square: dim * at(square).norm_squared, white.norm_squared)
        except ValueError:  # growth exceeds loss at any norm
            if law.radial > 0:
                raise NoEquilibrium(
                    f"a radial gradient of strength {law.radial:g} pulls {o.describe()} past the origin in every step, "
                    "for which theory has no equilibrium; lower strength or lr"
                ) from None
            raise self._outward(law) from None
        walk = at(norm_squared)
        drowned = law.radial**2 * norm_squared > noise_variance(law, dim, norm_squared) * dim
        # where noise is drowned, the balance is of another kind: what is left of the noise hardly turns w
        if law.radial < 0 and (drowned or walk.decay + law.radial <= 0):
            raise self._outward(law)
        relaxation = white.relaxation_steps / (1 + law.radial / walk.decay)
        error = white.model_error + (walk.model_error if method == "exact" else 0.0)
        return SteadyState(norm_squared, walk.one_minus_cosine, relaxation, error)

    def _with_decay(self, weight_decay: float) -> Departing[Spec]:
        return type(self)(replace(self.spec, weight_decay=weight_decay))

    def _outward(self, law: GradientPower) -> NoEquilibrium:
        o = self.spec
        if o.decay == "coupled":
            against = f"a radial gradient of strength {law.radial:g}"
        else:  # decay is in units of an update, which divides a gradient by the noise beside it
            against = f"what {o.label} makes of a radial gradient of strength {law.radial:g} beside this noise"
        return NoEquilibrium(
            "weight decay and radial gradient together must pull inwards for an equilibrium to exist; "
            f"{against} outweighs weight_decay {o.weight_decay:g} in {o.describe()}. Raise weight_decay"
        )

    # --- persistent mean (derivations.signal) ---

    def constant_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """Gradients independent of w: noise walks about weights that do not move."""
        fixed, noise, half = self.beside_mean(dim, law, method, white)
        total = noise + fixed
        turned = half * noise / total * float(closed_forms.young_angle_spread(dim, fixed / total))  # ‖w‖ hardly varies
        # the fixed part of w fades in at the rate of w, half that of ‖w‖²
        return SteadyState(total, turned, 2 * white.relaxation_steps, white.model_error, 2 * half * noise)

    def projected_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """Gradients orthogonal to w: the weights turn towards the mean, and what noise adds to them is pulled after."""
        if method == "leading":
            return white

        def excess(log_odds: float) -> float:
            aligned = float(scipy.special.expit(log_odds))
            try:
                norm_squared, walk = self.aligned(dim, law, white.norm_squared, aligned)
            except ValueError:  # so strong a pull that the rest of the weights diverges
                return 1e3
            needed = closed_forms.signal_squared_mean(norm_squared, aligned, walk.decay)
            return float(np.log(needed / (law.signal**2 * noise_variance(law, dim, norm_squared) * dim)))

        takeover = closed_forms.adamw_takeover(self.spec.lr, self.spec.weight_decay)
        guess = float(scipy.special.logit(closed_forms.signal_alignment(law.signal**2 / takeover)))
        aligned = float(scipy.special.expit(bracketed_root(excess, guess - 12, guess + 6, xtol=1e-10)))
        norm_squared, walk = self.aligned(dim, law, white.norm_squared, aligned)
        error = white.model_error + self.declared_signal(law, dim, norm_squared, walk, aligned)
        half = walk.one_minus_cosine * (1 - aligned)
        return replace(white, norm_squared=norm_squared, one_minus_cosine=half, model_error=error)

    def aligned(self, dim: int, law: GradientPower, start: float, aligned: float) -> tuple[float, SteadyState]:
        """E‖w‖² at a squared cosine `aligned` between w and the mean, and the walk of the rest of w."""
        o, across = self.spec, 1 - aligned

        def rest_of_weights(norm_squared: float) -> SteadyState:
            noise = noise_variance(law, dim, norm_squared)
            left = self.left_of_mean(law.signal, noise, across)
            found = self.walk(noise, left, 0.0, 0.0)
            for _ in range(2):  # for AdamW the pull depends on the gain, and the gain on what is left
                pull = float(closed_forms.signal_pull(aligned, found.decay))
                decayed = (o.weight_decay + pull) ** 2 * norm_squared * across / dim
                found = self.walk(noise, left, decayed, pull)
            return found

        norm_squared = settled(lambda square: dim * rest_of_weights(square).norm_squared / across, start)
        return norm_squared, rest_of_weights(norm_squared)
