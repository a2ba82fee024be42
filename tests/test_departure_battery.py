"""Gradients with a mean, a memory or a radial part, on random settings that the theory was not made for."""

import numpy as np
import pytest
from click.testing import CliRunner

import rotsim
from experiments import departures
from experiments.departures import LAWS, NAMES, NEURONS, QUANTITIES, measure, setting
from rotsim.gradients import Isotropic, ScaleInvariant
from tests import chance

SEEDS = range(6000, 6006)  # none of which was looked at while the theory was made


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("law", LAWS)
def test_no_setting_is_beyond_its_declared_error(law, name):
    """Within what noise may do, plus what is declared."""
    bound = chance.errors(NEURONS, len(SEEDS) * len(QUANTITIES))
    for seed in SEEDS:
        result = measure(law, name, seed)
        if result is not None:
            found, declared = result
            beyond = np.abs(found[:, 0]) - bound * found[:, 1]
            assert beyond.max() < declared, (*setting(law, name, seed), found, declared)


def test_white_noise_is_refused():
    """Negative control: the same walks against the equilibrium under white noise."""
    refused, k = 0, chance.errors(NEURONS, len(SEEDS) * len(QUANTITIES))
    for seed in SEEDS[:4]:
        optimizer, dim, gradient = setting("autocorrelated", "adamw", seed)
        white = rotsim.equilibrium(optimizer, dim, ScaleInvariant() if gradient.scale_invariant else Isotropic())
        found, declared = measure("autocorrelated", "adamw", seed)
        eq = rotsim.equilibrium(optimizer, dim, gradient)
        off = (1 + found[:, 0]) * [getattr(eq, name) / getattr(white, name) for name in QUANTITIES] - 1
        refused += np.any(np.abs(off) > k * found[:, 1] + declared)
    assert refused >= 3


@pytest.mark.slow
def test_the_table_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(departures, "LAWS", ("signal",))
    monkeypatch.setattr(departures, "NAMES", ("sgdm", "lion"))
    monkeypatch.setattr(departures, "NEURONS", 2)
    path = tmp_path / "table.md"
    result = CliRunner().invoke(departures.main, ["--settings", "1", "--seed", "6000", "--output", str(path)])
    assert result.exit_code == 0, result.output
    lines = path.read_text().splitlines()
    assert "--settings 1 --seed 6000" in lines[2] and sum(line.startswith("| signal") for line in lines) == 2
