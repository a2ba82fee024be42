"""Signum is Lion with one β: in walks bit for bit, in theory number for number; and walks settle where theory says."""

import functools

import numpy as np
import pytest

import rotsim
from rotsim.cli import main
from tests import chance

SPEC, AS_LION = rotsim.Signum(0.01, 0.5, 0.8), rotsim.Lion(0.01, 0.5, (0.8, 0.8))
SETTINGS, BAR = 60, 0.003
RNG = np.random.default_rng(21)
DRAWN = [
    rotsim.Signum(lr, float(product / lr), float(momentum))
    for lr, product, momentum in zip(
        np.exp(RNG.uniform(np.log(1e-3), np.log(0.1), SETTINGS)).tolist(),
        np.exp(RNG.uniform(np.log(1e-4), np.log(0.05), SETTINGS)),
        RNG.uniform(0, 0.98, SETTINGS),
        strict=True,
    )
]


@pytest.mark.parametrize(
    "gradient", [rotsim.ScaleInvariant(), rotsim.Radial(1e-3), rotsim.Signal(0.05), rotsim.Autocorrelated(0.3)],
    ids=lambda g: g.name,
)  # fmt: skip
def test_its_numbers_are_those_of_lion(gradient):
    assert rotsim.equilibrium(SPEC, 64, gradient) == rotsim.equilibrium(AS_LION, 64, gradient)
    assert rotsim.equilibrium(SPEC, 64, gradient) != rotsim.equilibrium(
        rotsim.Lion(0.01, 0.5, (0.8, 0.81)), 64, gradient
    )


def test_its_course_and_walk_are_those_of_lion():
    walk = functools.partial(rotsim.simulate, neurons=2, engine="numpy")
    for compute in (rotsim.predict, walk):
        ours, theirs = (compute(spec, dim=32, steps=60, initial_norm=1.0) for spec in (SPEC, AS_LION))
        np.testing.assert_array_equal(ours["rotation"].values, theirs["rotation"].values)


def test_a_setting_made_of_it_is_one_again():
    changed = rotsim.transfer(SPEC, momentum=0.5).optimizer
    assert isinstance(changed, rotsim.Signum) and changed.momentum == 0.5
    assert rotsim.optimizers.optimizer_from_dict(SPEC.to_dict()) == SPEC and "betas" not in SPEC.to_dict()
    [one] = rotsim.equilibria(rotsim.Signum, lr=[0.01], weight_decay=0.5, momentum=0.8, dim=64).rotation
    assert one == pytest.approx(rotsim.equilibrium(SPEC, 64).rotation)


@functools.cache
def allowed():
    """Standard errors that either quantity of any setting may be off."""
    return chance.errors(24, 2 * SETTINGS)


def held_to_a_walk(spec, seed):
    eq = rotsim.equilibrium(spec, 512, rotsim.Isotropic(0.1))
    steps = int(np.clip(40 * eq.relaxation_steps, 1000, 3000)) // 10 * 10
    walk = rotsim.simulate(
        spec, 512, 24, steps, rotsim.Isotropic(0.1), seed=seed, initial_norm=eq.norm, record_every=steps // 10
    )
    for name in ("norm", "rotation"):
        square = (walk[name].values[:, 5:] ** 2).mean(axis=1)
        found, error = np.sqrt(square.mean()), square.std() / np.sqrt(len(square)) / 2 / square.mean()
        assert abs(found / getattr(eq, name) - 1) < BAR + eq.model_error + allowed() * error, (spec, name)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SETTINGS))
def test_walks_of_many_settings_settle_where_theory_says(seed):
    held_to_a_walk(DRAWN[seed], seed)


def test_it_turns_faster_than_adamw_by_the_root_of_half_pi():
    leading = [
        rotsim.equilibrium(spec, 256, method="leading").rotation
        for spec in (rotsim.Signum(1e-4, 0.1, 0.9), rotsim.AdamW(1e-4, 0.1, (0.9, 0.999)))
    ]
    assert leading[0] / leading[1] == pytest.approx(np.sqrt(np.pi / 2))


def test_the_command_line_has_it(capsys):
    assert (
        main(["equilibrium", "signum", "--lr", "1e-3", "--weight-decay", "1", "--momentum", "0.9", "--dim", "64"]) == 0
    )
    assert "Signum(" in capsys.readouterr().out
    assert main(["convert", "adamw", "--lr", "3e-4", "--weight-decay", "0.1", "--to", "signum"]) == 0
    assert main(["derive", "signum"]) == 0
