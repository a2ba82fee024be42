"""What a floating-point format can hold of a walk: refused before where it cannot, noticed after where it did not."""

import numpy as np
import pytest

import rotsim
from rotsim.errors import LARGEST_SIZE, SMALLEST_SIZE
from rotsim.simulation.formats import Diverged, check_format, check_memory_of_gradients, least_norm, lost

SINGLE, DOUBLE = np.dtype("float32"), np.dtype("float64")
SGDM, ADAMW = rotsim.SGDM(0.1, 0.1), rotsim.AdamW(0.1, 0.1)
PLAIN = rotsim.ScaleInvariant()


def check(real=SINGLE, optimizer=SGDM, gradient=PLAIN, norms=(1.0,), dim=8):
    check_format(optimizer, gradient, np.array(norms), dim, real, "initial_norm")


@pytest.mark.parametrize(
    ("argument", "held", "lost_in_single"),
    [
        ("norms", (3.3e-10, 3e9), (3.2e-10,)),
        ("norms", (1.0,), (1.0, 3.1e9)),
        ("gradient", rotsim.Isotropic(3.3e-10), rotsim.Isotropic(3.2e-10)),
        ("gradient", rotsim.Isotropic((1.0, 3e9)), rotsim.Isotropic((1.0, 3.1e9))),
        ("optimizer", rotsim.SGDM(0.1, 0.1, momentum=1 - 4e-6), rotsim.SGDM(0.1, 0.1, momentum=1 - 2e-6)),
        ("optimizer", rotsim.AdamW(0.1, 0.1, betas=(0.9, 0.999)), rotsim.AdamW(0.1, 0.1, betas=(0.9, 1 - 1e-7))),
        ("optimizer", rotsim.Rotational(SGDM), rotsim.Rotational(rotsim.SGDM(0.1, 0.1, momentum=1 - 1e-7))),
        ("optimizer", rotsim.Rotational(SGDM), rotsim.Rotational(SGDM, update_norm_decay=1 - 1e-7)),
    ],
)
def test_what_single_precision_loses_is_refused_and_double_takes_it(argument, held, lost_in_single):
    check(**{argument: held})
    with pytest.raises(rotsim.InvalidInput, match=r"float32.*; use dtype='float64'$"):
        check(**{argument: lost_in_single})
    check(DOUBLE, **{argument: lost_in_single})


def test_many_coordinates_share_a_norm():
    """From dim 92 234 on the least norm grows with its root, since each coordinate's change is to be squared."""
    check(norms=(3.3e-10,), dim=92_000)
    with pytest.raises(rotsim.InvalidInput, match=r"norms from 6.6e-10"):
        check(norms=(6.4e-10,), dim=4 * 92_234)
    assert least_norm(4, SINGLE) == 2 * least_norm(1, SINGLE)


def test_every_size_fits_into_double_precision():
    check(
        DOUBLE, norms=(SMALLEST_SIZE, LARGEST_SIZE), gradient=rotsim.Isotropic((SMALLEST_SIZE, LARGEST_SIZE)), dim=2**32
    )


def test_weights_that_left_the_range_are_lost():
    squares = np.array(
        [1.0, np.inf, np.nan, -np.inf, 0.0, least_norm(8, SINGLE) ** 2, 0.99 * least_norm(8, SINGLE) ** 2]
    )
    assert lost(squares, 8, SINGLE).tolist() == [False, True, True, True, True, False, True]


@pytest.mark.parametrize(
    ("slot", "value", "optimizer", "message"),
    [
        (1, np.inf, SGDM, "too large for float32"),
        (2, np.inf, ADAMW, "too large for float32"),
        (2, np.nan, ADAMW, "too large for float32"),
        (2, 1e-40, rotsim.AdamW(0.1, 0.1, eps=0.0), "too small for float32; raise their scale or `eps`"),
        (2, 1e-40, rotsim.Rotational(rotsim.AdamW(0.1, 0.1, eps=0.0)), "too small for float32"),
    ],
)
def test_moments_that_overflowed_or_vanished_are_noticed_in_any_neuron(slot, value, optimizer, message):
    slots = np.ones((5, 3, 8), dtype=np.float32)
    check_memory_of_gradients(optimizer, slots)
    slots[3, slot] = value
    with pytest.raises(Diverged, match=message):
        check_memory_of_gradients(optimizer, slots)


def test_an_eps_that_is_felt_or_a_gradient_of_zero_is_no_loss():
    slots = np.ones((2, 3, 8), dtype=np.float32)
    slots[:, 2] = 1e-40
    check_memory_of_gradients(ADAMW, slots)  # eps decides the step
    slots[:, 1] = 0
    check_memory_of_gradients(rotsim.AdamW(0.1, 0.1, eps=0.0), slots)
