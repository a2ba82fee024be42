"""Decay behind the mask of `Cautious`, as an equivalent walk: less of the weights decays, and more of the update steps.

What decays is regressed on weight and update, which are taken as Gaussian together (`derivations.cautious`).
"""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part

LEAST_ACROSS = 1e-12  # of a step's squared length that lies across the weights
MASKED = 5.0  # steps that updates are alike, over the decays by which the share is off behind such a mask
ALIKE = 3.0  # squared correlation of weights with updates, over what the share is off if these made all of them


@kernel_part()
def behind(signs: bool, aligned: Any) -> Any:
    """E w² and E w·u where the signs of a weight and an update of unit variance agree, and slopes of what decays there.

    `signs` says whether the update is a sign. `aligned` in [-1, 1] is the correlation of the weight with it, or with
    what the sign is taken of. Slopes are on weight and update (`derivations.cautious.behind_the_mask`).
    """
    if signs:
        return (
            closed_forms.cautious_decayed(aligned),
            closed_forms.cautious_sign_overlap(aligned),
            closed_forms.cautious_sign_of_weight(aligned),
            closed_forms.cautious_sign_of_update(aligned),
        )
    return (
        closed_forms.cautious_decayed(aligned),
        closed_forms.cautious_overlap(aligned),
        closed_forms.cautious_of_weight(aligned),
        closed_forms.cautious_of_update(aligned),
    )


@kernel_part()
def decaying(lasts: float, signs: bool, square: float, across: float, mean_size: float) -> Any:
    """What decays in a step; all weights, if `lasts` is 0.

    `lasts` is `Theory.cautious`, and `signs` says whether updates are signs. `square` > 0 and `across` are E‖w‖² and
    E w·u of the next update. `mean_size` is √(π dim/2) times the mean size of its coordinate: its RMS norm, if it is
    Gaussian.

    It returns E‖w‖² and E w·u of the weights that decay, and the slopes of these on weight and update. Last comes the
    squared correlation of weight and update (`derivations.cautious.in_time`).
    """
    if lasts == 0.0:
        return square, across, 1.0, 0.0, 0.0
    length = np.sqrt(square)
    aligned = across / length / mean_size * (pi / 2 if signs else 1.0)
    aligned = min(max(aligned, -1.0), 1.0)
    share, met, of_weight, of_update = behind(signs, aligned)
    unit = mean_size / np.sqrt(pi / 2) if signs else mean_size  # of an update of variance 1
    return share * square, met * length * unit, of_weight, of_update * length / unit, aligned * aligned


@kernel_part()
def doubted(lasts: float, decay: float, alike: float) -> float:
    """Declared error of the share that decays, over a half, since weights are not Gaussian together with their updates.

    A mask that `lasts` (`Theory.cautious`) takes more of some weights than of others. Weights that were made by updates
    alike are as these are: `alike` is their squared correlation while the weights came about. It is what
    `derivations.cautious.polar` neglects: an order of magnitude, with factors as walks show them.
    """
    return max(decay * (1 + lasts / MASKED), alike / ALIKE) if lasts > 0.0 else 0.0


@kernel_part()
def misjudged(
    doubt: float, decay: float, step: float, before: float, after: float, power: float, moved: float, dim: float
) -> Any:
    """What such an error makes of one step: relative errors of E‖w‖², and of the RMS of angle and update.

    `doubt` is of `doubted`, `decay` lr·weight_decay. `step` multiplies the update. `before` and `after` are E‖w‖²,
    `power` E‖u‖², `moved` E‖Δw‖². Of `dim` weights shares of a neuron's squared norm differ from their mean
    (`derivations.cautious.in_time`, where weight and update are uncorrelated).
    """
    if doubt == 0.0 or moved == 0.0:
        return 0.0, 0.0, 0.0
    length = np.sqrt(before)
    of_moved = doubt * decay * (decay * before / 2 + step * np.sqrt(power) * length / pi)
    radial = abs(np.sqrt(after) - length)
    across = max(moved - radial**2, LEAST_ACROSS * moved)
    by_chance = 0.75 / dim * decay**2 * before  # of E(w·Δw)²/‖w‖²: shares by a mask of Gaussian weights
    on_angle = (of_moved + radial * decay * length * doubt + by_chance) / across / 2
    return decay * doubt, on_angle, of_moved / moved / 2
