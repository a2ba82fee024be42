"""Muon's updates along the weights: the derivative of the update, walks with a known pull, and what is committed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import rotsim
from experiments.networks import tilt

COMMITTED = Path(tilt.__file__).parents[1] / "results" / "tilt"


def test_the_derivative_is_that_of_the_update():
    noise, spec = torch.Generator().manual_seed(1), rotsim.Muon(0.1, 0.1)
    for rows, columns in ((5, 5), (4, 9), (9, 4)):
        at, along = (torch.randn(rows, columns, generator=noise, dtype=torch.float64) for _ in range(2))
        at /= at.norm()

        def update(change, at=at, along=along):
            left, s, right = torch.linalg.svd(at + change * along, full_matrices=False)
            return left @ torch.diag(tilt.shape(s, spec)) @ right

        slope = (update(1e-6) - update(-1e-6)) / 2e-6
        assert (tilt.derivative(at, along, spec) - slope).abs().max() < 1e-4 * slope.abs().max()
        assert (tilt.derivative(at, at, spec) - slope).abs().max() > 0.1 * slope.abs().max()  # negative control


def walked(pull, steps):
    """P/λ of a 16 x 16 matrix on noise and `pull` times its weights, its error, and the RMS norm of a row at rest."""
    noise, spec = torch.Generator().manual_seed(3), rotsim.Muon(0.02, 0.1, 0.8)
    matrix = torch.nn.Parameter(torch.randn(16, 16, generator=noise, dtype=torch.float64))
    matrix.data *= rotsim.equilibrium(spec, 16, rows=16).norm / 4
    optimizer = torch.optim.Muon([matrix], lr=spec.lr, weight_decay=spec.weight_decay, momentum=spec.momentum)
    squares = []
    for step in range(steps):
        matrix.grad = torch.randn(16, 16, generator=noise, dtype=torch.float64) + pull * matrix.detach()
        optimizer.step()
        if step == steps // 3:
            probe = tilt.Probe(spec, matrix, 20, 1)
        elif step > steps // 3:
            probe.look(optimizer.state[matrix]["momentum_buffer"])
            squares.append(float(matrix.detach().square().sum()) / 16)
    return *probe.pull(), np.sqrt(np.mean(squares)), spec


def test_under_white_noise_nothing_pulls():
    pull, error, norm, spec = walked(0.0, 3000)
    assert abs(pull) < 4 * error < 0.8
    assert norm == pytest.approx(rotsim.equilibrium(spec, 16, rows=16).norm, rel=0.1)


@pytest.mark.slow
def test_the_norm_is_that_of_decay_and_the_measured_pull():
    pull, error, norm, spec = walked(0.12, 12_000)
    assert pull > 5 * error
    with_pull = rotsim.equilibrium(spec.with_rates(spec.lr, spec.weight_decay * (1 + pull)), 16, rows=16).norm
    assert norm == pytest.approx(with_pull, rel=0.08)
    assert norm < 0.85 * rotsim.equilibrium(spec, 16, rows=16).norm  # negative control: without it


def committed():
    return [tilt.Tilt(**one) for one in json.loads((COMMITTED / "tilt.json").read_text())]


def test_the_committed_table_is_that_of_the_committed_numbers():
    found = committed()
    assert tilt.table(found, "python -m experiments.networks tilt --seed 0") == (COMMITTED / "tilt.md").read_text()
    turned, others = ([one for one in found if one.layer.endswith((".q", ".k")) == some] for some in (True, False))
    assert len(turned) == 4 and len(others) == 8
    assert min(one.pull for one in turned) > 0 and np.mean([one.pull for one in turned]) > 0.2
    assert abs(np.mean([one.pull for one in others])) < 0.1
    assert max(abs(one.norm / one.pulled_norm - 1) for one in found) < 0.12
    assert max(abs(one.norm - 1) for one in found) > 0.2  # negative control: white noise alone
