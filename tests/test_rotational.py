"""Rotational optimizers: constant norm, the angle of theory, and everything torch.optim promises."""

from __future__ import annotations

import copy
from math import pi, sqrt

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rotsim  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Lion, Rotated, RotationalAdamW, RotationalLion, RotationalSGDM  # noqa: E402
from rotsim.measure.rotation_kernel import ROUNDING  # noqa: E402
from tests import chance  # noqa: E402

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("one_thread")]

nn = torch.nn

# the optimizer, torch's plain one with the same hyperparameters, and the paper's angle written out
KINDS = {
    "adamw": (
        lambda p, **k: RotationalAdamW(p, lr=1e-2, weight_decay=0.1, **k),
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
        sqrt(2 * 1e-3 * 0.1 / 1.9),
    ),
    "sgdm": (
        lambda p, **k: RotationalSGDM(p, lr=0.1, momentum=0.8, weight_decay=1e-2, **k),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=1e-2),
        sqrt(2 * 1e-3 / 1.8),
    ),
    "nesterov": (
        lambda p, **k: RotationalSGDM(p, lr=0.1, momentum=0.8, weight_decay=1e-2, nesterov=True, **k),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=1e-2, nesterov=True),
        sqrt(2 * 1e-3 * (1 + 2 * 0.8 - 2 * 0.8**3) / 1.8),
    ),
    "lion": (
        lambda p, **k: RotationalLion(p, lr=1e-3, weight_decay=1.0, **k),
        lambda p: Lion(p, lr=1e-3, weight_decay=1.0),
        sqrt(pi / 2) * sqrt(2e-3) * sqrt(0.1**2 + 0.9**2 * 0.01 / 1.99),
    ),
}


def weights(*shape: int, seed: int = 0, dtype=torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def walk(optimizer, parameters, steps: int, seed: int = 1, after=lambda: None) -> None:
    """Steps on white noise."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
        optimizer.step()
        after()


def rows(parameter) -> np.ndarray:
    return parameter.detach().double().reshape(parameter.shape[0], -1).numpy().copy()


def centred(w: np.ndarray) -> np.ndarray:
    """As the first step leaves rows before it turns them."""
    found = w - w.mean(axis=1, keepdims=True)
    return found * np.linalg.norm(w, axis=1, keepdims=True) / np.linalg.norm(found, axis=1, keepdims=True)


def angles(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (before, after))
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))


def measured_rotation(optimizer, parameter, steps: int = 300, skip: int = 100) -> tuple[float, float]:
    """RMS angle per step on white noise, over rows and steps, once the momentum has filled; its standard error."""
    last, squares = [rows(parameter)], []

    def measure() -> None:
        now = rows(parameter)
        squares.append(angles(last[0], now) ** 2)
        last[0] = now

    walk(optimizer, [parameter], steps, after=measure)
    rotation = np.mean(squares[skip:], axis=0)  # of each row, squared
    value = float(np.sqrt(rotation.mean()))
    return value, float(rotation.std(ddof=1)) / sqrt(len(rotation)) / (2 * value)


def agrees(optimizer, parameter, theory: float) -> bool:
    """Whether rows turn by this angle, but for 1/dim (a running mean holds the newest length) and noise."""
    value, error = measured_rotation(optimizer, parameter)
    return abs(value / theory - 1) < 1 / parameter[0].numel() + chance.errors(len(parameter)) * error / theory < 0.03


@pytest.mark.few(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zero_mean", [True, False])
def test_rotation_is_that_of_theory_and_norms_never_move(kind, zero_mean):
    make, plain, theory = KINDS[kind]
    parameter = weights(24, 160)
    norms = np.linalg.norm(rows(parameter), axis=1)
    optimizer = make([parameter], zero_mean=zero_mean)
    assert optimizer.rotation(optimizer.param_groups[0]) == pytest.approx(theory, rel=1e-12)
    assert agrees(optimizer, parameter, theory)
    np.testing.assert_allclose(np.linalg.norm(rows(parameter), axis=1), norms, rtol=1e-6)
    # negative control: the plain optimizer, started at the same weights, does neither
    control = weights(24, 160)
    assert not agrees(plain([control]), control, theory)
    assert np.abs(np.linalg.norm(rows(control), axis=1) / norms - 1).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_angle_is_the_leading_equilibrium_of_the_spec(kind):
    spec = {
        "adamw": rotsim.AdamW(lr=1e-2, weight_decay=0.1),
        "sgdm": rotsim.SGDM(lr=0.1, momentum=0.8, weight_decay=1e-2),
        "nesterov": rotsim.SGDM(lr=0.1, momentum=0.8, weight_decay=1e-2, nesterov=True),
        "lion": rotsim.Lion(lr=1e-3, weight_decay=1.0),
    }[kind]
    assert rotsim.equilibrium(spec, method="leading").rotation == pytest.approx(KINDS[kind][2], rel=1e-12)


@pytest.mark.slow
def test_ten_thousand_steps_leave_the_norm_where_it_was():
    parameter = weights(4, 16)
    norms = np.linalg.norm(rows(parameter), axis=1)
    walk(RotationalSGDM([parameter], lr=0.1, weight_decay=0.1), [parameter], 10_000)
    np.testing.assert_allclose(np.linalg.norm(rows(parameter), axis=1), norms, rtol=1e-6)


@pytest.mark.parametrize("zero_mean", [True, False])
@pytest.mark.parametrize("per_neuron", [True, False])
def test_one_step_equals_the_formula_in_numpy(per_neuron, zero_mean):
    parameter = weights(3, 5, 2, dtype=torch.float64)
    optimizer = RotationalSGDM(
        [parameter], lr=0.2, momentum=0.0, weight_decay=0.3, per_neuron=per_neuron, zero_mean=zero_mean
    )
    power = 0.0
    for step in (1, 2, 3):
        w = rows(parameter) if per_neuron else rows(parameter).reshape(1, -1)
        w = centred(w) if zero_mean and step == 1 else w
        parameter.grad = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        u = rows(parameter.grad).reshape(w.shape)
        basis = [np.ones_like(w), w] if zero_mean else [w]
        for row in range(len(w)):  # project with a QR factorisation, not with the code's algebra
            q, _ = np.linalg.qr(np.stack([b[row] for b in basis], axis=1))
            u[row] -= q @ (q.T @ u[row])
        size = np.linalg.norm(u, axis=1)
        power = 0.9 * power + 0.1 * size**2
        theta = sqrt(2 * 0.2 * 0.3) * size / np.sqrt(power / (1 - 0.9**step))
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        expected = w * np.cos(theta)[:, None] - u * (norm[:, 0] * np.sin(theta) / size)[:, None]
        optimizer.step()
        np.testing.assert_allclose(rows(parameter).reshape(w.shape), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_undecayed_matrices_and_thin_rows_follow_the_plain_optimizer(kind):
    make, plain, _ = KINDS[kind]

    def groups():
        shared = [weights(7), weights(4, 2, seed=1), weights(300, seed=2)]  # a vector and rows of fan-in 2
        return [{"params": shared}, {"params": [weights(3, 6, seed=3)], "weight_decay": 0.0}]

    ends = []
    for optimizer in (make(groups()), plain(groups())):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        walk(optimizer, parameters, 20)
        ends.append(parameters)
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-7)
    rotated, unrotated = weights(3, 6, seed=3), ends[1][-1]
    walk(make([rotated]), [rotated], 20)
    assert (rotated - unrotated).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*KINDS, "rotated"])
def test_a_state_dict_resumes_bit_for_bit(kind, dtype):
    def make(p):
        if kind == "rotated":
            return Rotated(torch.optim.Adam(p, lr=1e-2, weight_decay=0.1), 0.01)
        return KINDS[kind][0](p)

    straight = [weights(6, 8, dtype=dtype), weights(5, dtype=dtype)]
    optimizer = make(straight)
    walk(optimizer, straight, 5)
    resumed = [nn.Parameter(p.detach().clone()) for p in straight]
    saved = copy.deepcopy(optimizer.state_dict())
    walk(optimizer, straight, 5, seed=2)
    forgetful = [nn.Parameter(p.detach().clone()) for p in resumed]
    again = make(resumed)
    again.load_state_dict(saved)
    assert again.state[resumed[0]]["norm"].dtype == torch.float32  # the weights' own type would round it
    walk(again, resumed, 5, seed=2)
    for a, b in zip(straight, resumed, strict=True):
        assert torch.equal(a, b)
    walk(make(forgetful), forgetful, 5, seed=2)  # negative control: the state matters
    assert not torch.equal(forgetful[0], straight[0])


def test_a_schedule_sets_the_angle_at_once():
    parameter = weights(16, 128)
    optimizer = RotationalAdamW([parameter], lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step < 10 else 0.25)
    walk(optimizer, [parameter], 1, after=schedule.step)
    start = rows(parameter)  # centred, once
    walk(optimizer, [parameter], 9, after=schedule.step)
    assert (rows(parameter) == start).all() or angles(start, rows(parameter)).max() < 1e-6  # lr 0 turns nothing
    assert agrees(optimizer, parameter, KINDS["adamw"][2] / 2)


def test_closure_and_gradients_that_are_missing():
    used, unused = weights(3, 4), weights(3, 4, seed=1)
    optimizer = RotationalLion([used, unused], lr=1e-2, weight_decay=1.0)
    before = unused.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum() + used.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx((weights(3, 4) ** 2 + weights(3, 4)).sum().item(), rel=1e-6)
    assert torch.equal(unused, before)
    assert angles(rows(weights(3, 4)), rows(used)).min() > 1e-3


def test_dead_rows_and_zero_rows_stay_and_an_all_zero_weight_is_refused():
    table = weights(5, 8)
    with torch.no_grad():
        table[2] = 0.0
    start = rows(table)
    optimizer = RotationalAdamW([table], lr=1e-2, weight_decay=0.1)
    for step in range(30):
        table.grad = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
        table.grad[2:4] = 0.0
        optimizer.step()
    assert torch.isfinite(table).all()
    assert (rows(table)[2] == 0).all()
    np.testing.assert_allclose(rows(table)[3], centred(start[3:4])[0], rtol=1e-5)  # turned by no gradient
    assert (np.abs(rows(table)[[0, 1, 4]] - start[[0, 1, 4]]).max(axis=1) > 1e-2).all()
    zero = nn.Parameter(torch.zeros(3, 4))
    zero.grad = torch.ones(3, 4)
    with pytest.raises(InvalidInput, match=r"all zeros and has no direction.*rotational=False"):
        RotationalAdamW([zero], weight_decay=0.1).step()


def test_rows_of_equal_weights_turn_without_trouble():
    parameter = nn.Parameter(torch.full((16, 300), 0.7))
    optimizer = RotationalSGDM([parameter], lr=0.1, weight_decay=1e-2)
    value, error = measured_rotation(optimizer, parameter)
    noise = chance.errors(16) * error / value
    # 0.8 % more: what differs between weights is at first the last updates alone, and most of the next is along it
    assert -noise < value / sqrt(2e-3 / 1.9) - 1 < 0.01 + noise


def test_convolutions_in_channels_last_and_half_precision():
    contiguous, last = (
        weights(6, 4, 3, 3),
        nn.Parameter(weights(6, 4, 3, 3).detach().to(memory_format=torch.channels_last)),
    )
    for parameter in (contiguous, last):
        walk(RotationalAdamW([parameter], lr=1e-2, weight_decay=0.1), [parameter], 5)
    torch.testing.assert_close(last, contiguous, rtol=1e-5, atol=1e-6)
    assert (contiguous - weights(6, 4, 3, 3)).abs().max() > 1e-2
    half = weights(6, 64, dtype=torch.bfloat16)
    norms = np.linalg.norm(rows(half), axis=1)
    walk(RotationalAdamW([half], lr=1e-2, weight_decay=0.5), [half], 50)
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(np.linalg.norm(rows(half), axis=1), norms, rtol=4e-3)  # bfloat16 keeps 3 digits


def plain_torch(monkeypatch) -> None:
    """What a GPU runs, and half precision: nothing fits the compiled kernel."""
    for module in ("rotation_loop", "rotated"):
        monkeypatch.setattr(f"rotsim.measure.{module}.fits", lambda *tensors: False)


def mixed(dtype) -> list[nn.Parameter]:
    kernel = nn.Parameter(weights(6, 4, 3, 3, seed=4, dtype=dtype).detach().to(memory_format=torch.channels_last))
    return [weights(3, 8, dtype=dtype), weights(5, 8, seed=1, dtype=dtype), weights(2, 9, seed=2, dtype=dtype), kernel]


@pytest.mark.few(6)
@pytest.mark.parametrize("zero_mean", [True, False])
@pytest.mark.parametrize("per_neuron", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, "rotated"])
def test_compiled_and_stacked_turns_are_the_same(kind, per_neuron, zero_mean, monkeypatch):
    options = {"per_neuron": per_neuron, "zero_mean": zero_mean}

    def make(parameters):
        if kind != "rotated":
            return KINDS[kind][0](parameters, **options)
        factors = {parameters[1]: torch.arange(5.0)} if per_neuron else None
        inner = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)
        return Rotated(inner, 0.4, factors=factors, **options)  # beyond the series of sine and cosine

    for dtype, rtol in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        ends = []
        for compiled in (True, False):
            with monkeypatch.context() as patch:
                if not compiled:
                    plain_torch(patch)
                parameters = mixed(dtype)
                walk(make(parameters), parameters, 10)
            ends.append(parameters)
        for ours, theirs, start in zip(*ends, mixed(dtype), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)
            assert (ours - start).abs().max() > 1e-3


@pytest.mark.parametrize("per_neuron", [True, False])
def test_updates_are_laid_out_as_they_are_stacked(per_neuron):
    from rotsim.measure import rotation_step

    parameters = [*mixed(torch.float32), weights(4, 9), weights(3, 3, 2, 2).to(memory_format=torch.channels_last)]
    zeros = rotation_step.zeros_to_stack(parameters, per_neuron)
    assert all(
        z.shape == p.shape and z.dtype == p.dtype and not z.any() for z, p in zip(zeros, parameters, strict=True)
    )
    for stack in rotation_step._stacks(parameters, per_neuron):
        rows = [rotation_step._rows(zeros[i], per_neuron) for i in stack]
        together = rotation_step._stack(rows)
        together += 1  # reaches the updates where nothing had to be copied
        assert all((zeros[i] == 1).all() for i in stack) == all(parameters[i].is_contiguous() for i in stack)
        assert together.shape == torch.cat(rows).shape


def test_threads_change_no_bit(monkeypatch):
    from rotsim.measure import rotation_kernel

    monkeypatch.setattr(rotation_kernel, "_SPREAD", 1)
    ends = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        parameters = [weights(67, 33), weights(3, 8, seed=1), weights(2, 900, seed=2)]
        walk(RotationalAdamW(parameters, lr=1e-2, weight_decay=0.1), parameters, 10)
        ends.append(parameters)
    for alone, *shared in zip(*ends, strict=True):
        assert all(torch.equal(alone, other) for other in shared)
    parts = rotation_kernel._shared(np.array([[0, 10, 4, *[800] * 7]]), size=4, threads=2)
    assert [part[0, 1] for part in parts] == [5, 5]  # rows each: the work is shared
    assert (parts[1][0, 3:] == [880] * 4 + [820] * 3).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_an_update_along_the_weights_turns_nothing(compiled, monkeypatch):
    """What is left of it is rounding, whose direction is none; and rounding must not move the norm."""
    if not compiled:
        plain_torch(monkeypatch)
    parallel, even = weights(4, 30), weights(4, 30, seed=1)
    starts = [centred(rows(p)) for p in (parallel, even)]
    norms = [np.linalg.norm(start, axis=1) for start in starts]
    along, level = (RotationalSGDM([p], lr=0.1, weight_decay=0.1, zero_mean=True) for p in (parallel, even))
    for _ in range(5):
        parallel.grad, even.grad = 3.0 * parallel.detach(), torch.full((4, 30), 0.7)
        along.step()
        level.step()
    for parameter, start in zip((parallel, even), starts, strict=True):
        np.testing.assert_allclose(rows(parameter), start, rtol=2e-6, atol=2e-6)
    constant = weights(4, 30, seed=2)
    optimizer = RotationalAdamW([even], lr=0.1, weight_decay=0.1)
    for _ in range(300):  # until the weights lie along the gradient, and the update along the weights
        even.grad = constant.detach().clone()
        optimizer.step()
    # where next to nothing is left across the weights, rounding turns that part towards them by eps/√ROUNDING at most
    tilt = np.finfo(np.float32).eps / ROUNDING**0.5
    angle = RotationalAdamW.rotation(optimizer.param_groups[0])
    np.testing.assert_allclose(np.linalg.norm(rows(even), axis=1), norms[1], rtol=tilt * angle)
    cosine = np.corrcoef(rows(even)[0], np.sign(rows(constant)[0]))[0, 1]
    assert abs(cosine) > 0.99


def test_the_norm_of_a_large_weight_is_kept_in_all_digits():
    parameter = weights(1024, 1024)
    before = np.linalg.norm(rows(parameter))
    walk(RotationalSGDM([parameter], lr=0.1, weight_decay=0.1, per_neuron=False), [parameter], 2)
    assert abs(np.linalg.norm(rows(parameter)) / before - 1) < 2e-7


def test_a_graph_from_before_the_step_is_noticed():
    for make in (lambda p: RotationalAdamW(p), lambda p: Rotated(torch.optim.AdamW(p), 0.01)):
        parameter = weights(3, 4)
        loss = parameter.square().sum()
        parameter.grad = torch.ones(3, 4)
        make([parameter]).step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_weights_may_change_their_type_between_steps():
    layer = nn.Linear(8, 4, bias=False)
    optimizer = RotationalLion(layer.parameters(), lr=1e-3, weight_decay=1.0)
    walk(optimizer, [layer.weight], 3)
    norms = np.linalg.norm(rows(layer.weight), axis=1)
    layer.double()  # the state stays in float32
    optimizer.state[layer.weight]["exp_avg"] = optimizer.state[layer.weight]["exp_avg"].double()
    walk(optimizer, [layer.weight], 3)
    np.testing.assert_allclose(np.linalg.norm(rows(layer.weight), axis=1), norms, rtol=1e-6)


def test_a_parameter_added_later_starts_its_own_clock():
    first, second = weights(8, 128), weights(8, 128, seed=1)
    optimizer = RotationalAdamW([first], lr=1e-2, weight_decay=0.1)
    walk(optimizer, [first], 50)
    optimizer.add_param_group({"params": [second], "weight_decay": 0.4})
    start = centred(rows(second))
    walk(optimizer, [first, second], 1)
    # the first update of AdamW is ±1 in every coordinate: the angle is the theory's to rounding
    np.testing.assert_allclose(angles(start, rows(second)), 2 * KINDS["adamw"][2], rtol=1e-4)


def test_any_optimizer_gets_a_chosen_rotation_where_its_own_differs():
    """The paper's experiment: Adam+L2's directions, with the rotation of AdamW, evenly for every neuron."""
    scale = torch.logspace(-2, 2, 32)[:, None]  # neurons with gradients of very different size

    def rotations(make) -> np.ndarray:
        parameter = weights(32, 100)
        optimizer = make([parameter])
        draw, squares = torch.Generator().manual_seed(0), []
        for step in range(450):
            before = rows(parameter)
            parameter.grad = scale * torch.randn(32, 100, generator=draw)
            optimizer.step()
            if step >= 250:
                squares.append(angles(before, rows(parameter)) ** 2)
        return np.sqrt(np.mean(squares, axis=0)) / KINDS["adamw"][2]

    # the first 250 steps are left out: where L2 dominates, v and with it the update norm still change by e
    def adam(p):
        return torch.optim.Adam(p, lr=1e-2, weight_decay=0.1)

    ratio = rotations(lambda p: Rotated(adam(p), rotsim.AdamW(lr=1e-2, weight_decay=0.1)))
    noisy = scale[:, 0].numpy() > 1  # where the gradient outweighs the L2 term, so that update norms are steady
    of_mean = ratio[noisy].std(ddof=1) / sqrt(noisy.sum())
    assert abs(ratio[noisy].mean() - 1) < 0.005 + chance.errors(noisy.sum()) * of_mean
    assert np.abs(ratio - 1).max() < 0.02 + chance.errors(32, 32) * ratio[noisy].std(ddof=1)  # each neuron
    control = rotations(adam)
    assert np.abs(control - 1).max() > 0.2 and control.std() > 10 * ratio.std()


def test_rotated_around_adamw_is_rotational_adamw():
    ends = []
    for make in (
        lambda p: RotationalAdamW(p, lr=1e-2, weight_decay=0.1),
        lambda p: Rotated(torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), lambda group: sqrt(group["lr"] * 0.2 / 19)),
    ):
        parameters = [weights(6, 40), weights(5)]
        optimizer = make(parameters)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
        walk(optimizer, parameters, 20, after=schedule.step)
        ends.append(parameters)
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: RotationalAdamW(p, lr=-1.0), "`lr` must be finite and >= 0; got -1.0"),
        (lambda p: RotationalAdamW(p, betas=(0.9, 1.0)), r"`betas\[1\]` must be in \[0, 1\); got 1.0"),
        (lambda p: RotationalSGDM(p, momentum=1.0), r"`momentum` must be in \[0, 1\); got 1.0"),
        (lambda p: RotationalLion(p, lr=1.0, weight_decay=2.0), "`lr \\* weight_decay` must be < 1"),
        (lambda p: RotationalLion(p, update_norm_decay=1.0), r"`update_norm_decay` must be in \[0, 1\); got 1.0"),
        (lambda p: RotationalLion(p, per_neuron=1), "`per_neuron` must be True or False; got 1"),
        (
            lambda p: RotationalAdamW([{"params": p, "capturable": True}]),
            "`capturable=True` is not.*CUDA graph",
        ),
        (lambda p: RotationalAdamW([{"params": p, "nesterov": True}]), "`nesterov=True` is not supported"),
        (lambda p: RotationalSGDM(p, momentum=0.0, nesterov=True), "`momentum` must be > 0 with nesterov"),
        (
            lambda p: Rotated(torch.optim.AdamW(p, capturable=True), 0.1),
            "`capturable=True` is not.*CUDA graph",
        ),
        (lambda p: Rotated(torch.optim.SGD(p, differentiable=True), 0.1), "`differentiable=True`.*do not pass through"),
        (
            lambda p: Rotated(torch.optim.AdamW(p), 0.1).add_param_group({"params": p, "differentiable": True}),
            "`differentiable=True` is not supported",
        ),
        (lambda p: Rotated(p, 0.1), "`inner` must be a torch.optim.Optimizer; got .Parameter"),
        (lambda p: Rotated(torch.optim.SGD(p), -0.1), "`rotation` must be finite and >= 0; got -0.1"),
        (lambda p: Rotated(torch.optim.SGD(p), rotsim.AdamL2(lr=0.1, weight_decay=0.1)), "depends on the gradient"),
    ],
)
def test_bad_arguments_are_answered_in_a_line(make, message):
    with pytest.raises(InvalidInput, match=message):
        make([weights(3, 4)])


def test_an_update_norm_decay_near_one_turns_by_the_angle_on_both_paths():
    """In float32 such a decay is 1: what it leaves is taken of the double."""
    turned = {}
    for decay in (0.9, 0.9999999, 0.9999999999):
        for transposed in (False, True):  # memory that the compiled kernel refuses
            noise = torch.Generator().manual_seed(0)
            shape = torch.randn(16, 64, generator=noise)
            parameter = torch.nn.Parameter(shape.t().contiguous().t() if transposed else shape)
            optimizer = RotationalAdamW(
                [parameter], lr=4e-3, weight_decay=0.5, betas=(0.9, 0.95), zero_mean=False, update_norm_decay=decay
            )
            squares = []
            for _ in range(60):
                before = parameter.detach().double()
                gradient = torch.randn(16, 64, generator=noise)
                parameter.grad = gradient.t().contiguous().t() if transposed else gradient
                optimizer.step()
                cosine = torch.nn.functional.cosine_similarity(before, parameter.detach().double(), dim=1)
                squares.append(float((2 - 2 * cosine).mean()))
            turned[decay, transposed] = np.sqrt(np.mean(squares[-30:]))
        assert turned[decay, True] == pytest.approx(turned[decay, False], rel=1e-3)
    assert turned[0.9, True] == pytest.approx(optimizer.rotation(optimizer.param_groups[0]), rel=0.1)


def _once(optimizer, *parameters):
    noise = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=noise, dtype=parameter.dtype)
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer.step()
    return [
        torch.nn.functional.cosine_similarity(b, p.detach(), dim=1).acos().mean().item()
        for b, p in zip(before, parameters, strict=True)
    ]


def _weight(rows=4, columns=32):
    found = torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))
    return torch.nn.Parameter(found - found.mean(dim=1, keepdim=True))


def test_rotated_turns_where_the_inner_optimizer_has_no_decay():
    for kind in (torch.optim.Adam, torch.optim.SGD):
        parameter = _weight()
        (angle,) = _once(Rotated(kind([parameter], lr=0.1), rotation=0.01), parameter)
        assert angle == pytest.approx(0.01, rel=1e-3)
    decayed, free, chosen = _weight(), _weight(), _weight()
    inner = torch.optim.AdamW([
        {"params": [decayed], "weight_decay": 0.1}, {"params": [free], "weight_decay": 0.0},
        {"params": [chosen], "weight_decay": 0.0, "rotational": True},
    ], lr=0.1)  # fmt: skip
    turned = _once(Rotated(inner, rotation=0.01), decayed, free, chosen)
    assert turned[0] == pytest.approx(0.01, rel=1e-3) and turned[2] == pytest.approx(0.01, rel=1e-3)
    assert turned[1] > 0.1  # as before, groups without decay beside one that has it are moved by the inner one alone


def test_the_papers_special_wrapper_leaves_the_decay_out_of_the_direction():
    """v from g + λw, the direction from the average of g alone over √v: as written out, and not Adam's own."""
    beta1, beta2, decay, eps = 0.9, 0.99, 0.8, 1e-8
    noise = torch.Generator().manual_seed(3)
    w0 = torch.nn.functional.normalize(torch.randn(6, 64, generator=noise, dtype=torch.float64), dim=1)
    parameters = {whole: torch.nn.Parameter(w0.clone()) for whole in (False, True)}
    optimizers = {
        whole: Rotated(
            torch.optim.Adam([p], lr=1e-2, betas=(beta1, beta2), eps=eps, weight_decay=decay), 0.02, zero_mean=False,
            update_norm_decay=0.0, decay_in_direction=whole,
        )
        for whole, p in parameters.items()
    }  # fmt: skip
    w, m, v = w0.clone(), torch.zeros_like(w0), torch.zeros_like(w0)
    for step in range(1, 31):
        gradient = torch.nn.functional.normalize(torch.randn(6, 64, generator=noise, dtype=torch.float64), dim=1)
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * (gradient + decay * w) ** 2
        u = m / (1 - beta1**step) / ((v / (1 - beta2**step)).sqrt() + eps)
        u = u - (u * w).sum(1, keepdim=True) * w / (w * w).sum(1, keepdim=True)
        w = w * np.cos(0.02) - torch.nn.functional.normalize(u, dim=1) * np.sin(0.02)
        for whole, parameter in parameters.items():
            parameter.grad = gradient.clone()
            optimizers[whole].step()
    assert (parameters[False] - w).abs().max() < 1e-9
    assert (parameters[True] - w).abs().max() > 1e-3
    again = torch.nn.Parameter(parameters[False].detach().clone())
    resumed = Rotated(
        torch.optim.Adam([again], lr=1e-2, betas=(beta1, beta2), eps=eps, weight_decay=decay), 0.02, zero_mean=False,
        update_norm_decay=0.0, decay_in_direction=False,
    )  # fmt: skip
    resumed.load_state_dict(copy.deepcopy(optimizers[False].state_dict()))
    _once(resumed, again)
    _once(optimizers[False], parameters[False])
    assert (again - parameters[False]).abs().max() < 1e-12
    with pytest.raises(rotsim.InvalidInput, match="SGD has another rule"):
        Rotated(torch.optim.SGD([again], lr=0.1), 0.01, decay_in_direction=False)


def test_options_of_a_group_are_known_or_refused():
    rotated, plain = _weight(), _weight()
    optimizer = RotationalAdamW(
        [{"params": [rotated]}, {"params": [plain], "rotational": False}], lr=1e-2, weight_decay=0.1
    )
    norms = [p.detach().norm(dim=1) for p in (rotated, plain)]
    _once(optimizer, rotated, plain)
    moved = [(p.detach().norm(dim=1) / n - 1).abs().max() for p, n in zip((rotated, plain), norms, strict=True)]
    assert moved[0] < 1e-6 and moved[1] > 1e-4
    for kind in (RotationalAdamW, RotationalSGDM, RotationalLion, Lion):
        with pytest.raises(rotsim.InvalidInput, match="update_norm_decay_factor"):
            kind([{"params": [_weight()], "update_norm_decay_factor": 0.0}], lr=1e-2, weight_decay=0.1)
    for options, message in (
        ({"rotational": True, "weight_decay": 0.0}, "needs `weight_decay` > 0"),
        ({"rotational": 1}, "`rotational` must"),
    ):
        with pytest.raises(rotsim.InvalidInput, match=message):
            RotationalAdamW([{"params": [_weight()], **options}], lr=1e-2)


@pytest.mark.parametrize("kind", [RotationalSGDM, RotationalLion])
def test_without_decay_they_say_that_they_rotate_nothing(kind):
    parameter = _weight()
    with pytest.warns(UserWarning, match="rotates nothing: `weight_decay` is 0"):
        _once(kind([parameter], lr=1e-2), parameter)


def test_errors_name_the_parameter():
    weight, bias = torch.nn.Parameter(torch.zeros(3, 8)), torch.nn.Parameter(torch.ones(8))
    with pytest.raises(rotsim.InvalidInput, match=r"the parameter 'fc.weight' of shape \(3, 8\) is all zeros"):
        _once(RotationalAdamW([("fc.weight", weight)], weight_decay=0.1), weight)
    bias.grad = torch.ones(8)
    optimizer = RotationalAdamW([{"params": [("fc.bias", bias)], "rotational": True}], weight_decay=0.1)
    with pytest.raises(rotsim.InvalidInput, match=r"the parameter 'fc.bias' of shape \(8,\) has no direction"):
        optimizer.step()


def test_a_checkpoint_of_the_plain_optimizer_is_taken_up():
    parameter = _weight()
    adamw = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.1)
    _once(adamw, parameter)
    optimizer = RotationalAdamW([parameter], lr=5e-3, weight_decay=0.2, update_norm_decay=0.5)
    optimizer.load_state_dict(adamw.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["update_norm_decay"]) == (1e-3, 0.1, 0.5)
    norm = parameter.detach().norm(dim=1)
    (angle,) = _once(optimizer, parameter)
    assert angle > 0 and torch.allclose(parameter.detach().norm(dim=1), norm, rtol=1e-6)
    assert float(optimizer.state[parameter]["step"]) == 2
    theirs = adamw.state_dict()
    theirs["param_groups"][0]["update_norm_decay_factor"] = 0.9
    with pytest.raises(rotsim.InvalidInput, match="of the paper's authors"):
        optimizer.load_state_dict(theirs)


def published(kind: str, w: np.ndarray, gradients: np.ndarray, angle: float, zero_mean: bool) -> np.ndarray:
    """The authors' step, from their own formulas: a step along the update, then back to the norm.

    It turns by the arctangent of its length, hence the tangent here. Weights of (rows, dim) and gradients of
    (steps, rows, dim), the hyperparameters of `KINDS`.
    """
    norm = np.linalg.norm(w, axis=1, keepdims=True)
    if zero_mean:
        w = w - w.mean(axis=1, keepdims=True)
        w = w * norm / np.linalg.norm(w, axis=1, keepdims=True)
    m, v, s = np.zeros_like(w), np.zeros_like(w), 0.0
    for t, g in enumerate(gradients, 1):
        if kind == "adamw":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        elif kind == "lion":
            u, m = np.sign(0.9 * m + 0.1 * g), 0.99 * m + 0.01 * g
        else:
            m = 0.8 * m + g
            u = g + 0.8 * m if kind == "nesterov" else m
        if zero_mean:
            u = u - u.mean(axis=1, keepdims=True)
        u = u - w * (u * w).sum(axis=1, keepdims=True) / norm**2
        length = np.linalg.norm(u, axis=1, keepdims=True)
        s = 0.1 * length**2 + 0.9 * s
        w = w - np.tan(angle * length / np.sqrt(s / (1 - 0.9**t))) * u / length * norm
        w = w * norm / np.linalg.norm(w, axis=1, keepdims=True)
    return w


@pytest.mark.parametrize("zero_mean", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_published_step_in_numpy_takes_the_same_way(kind, zero_mean):
    make, _, angle = KINDS[kind]
    noise = np.random.default_rng(8)
    start, gradients = noise.normal(0.3, 1.0, size=(4, 24)), noise.normal(size=(60, 4, 24))
    parameter = nn.Parameter(torch.tensor(start))
    optimizer = make([parameter], zero_mean=zero_mean)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    expected = published(kind, start, gradients, angle, zero_mean)
    np.testing.assert_allclose(rows(parameter), expected, rtol=1e-9, atol=1e-12)
    other = published("sgdm" if kind == "nesterov" else "nesterov", start, gradients, angle, zero_mean)
    assert np.abs(other - expected).max() > 1e-3  # another rule is told apart
    if zero_mean:
        uncentred = published(kind, start, gradients, angle, False)
        assert np.abs(uncentred - expected).max() > 1e-3


def test_the_start_is_centred_once_and_the_norms_are_kept():
    """By every rotational optimizer, on both paths; equal weights have no other part, and stay."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for make in (KINDS["adamw"][0], lambda p: Rotated(torch.optim.SGD(p, lr=0.1, weight_decay=0.1), 0.02)):
            parameter = nn.Parameter(weights(4, 32, dtype=dtype).data + 0.5)
            parameter.data[3] = 0.7
            norms, resolution = np.linalg.norm(rows(parameter), axis=1), torch.finfo(dtype).eps
            optimizer = make([parameter])
            walk(optimizer, [parameter], 3)
            after = rows(parameter)
            np.testing.assert_allclose(np.linalg.norm(after, axis=1), norms, rtol=4 * resolution)
            share = np.abs(after.mean(axis=1)) * sqrt(32) / norms
            assert share[:3].max() < 40 * resolution
            assert share[3] > 0.9
    # what was saved goes on from the weights as they are: a mean that they have by then is the caller's
    parameter = weights(2, 16)
    walk(first := KINDS["sgdm"][0]([parameter]), [parameter], 3)
    again = nn.Parameter(parameter.data + 0.1)
    second = KINDS["sgdm"][0]([again])
    second.load_state_dict(first.state_dict())
    walk(second, [again], 1)
    assert rows(again).mean() > 0.05


def test_lion_may_turn_by_the_rotation_of_the_sign_itself():
    """The angle of long neurons' equilibrium; a walk of the plain optimizer has it, and not the paper's."""
    plain = rotsim.Lion(lr=0.02, weight_decay=1.0, betas=(0.95, 0.98))
    options = dict(lr=plain.lr, weight_decay=plain.weight_decay, betas=plain.betas)
    optimizer = RotationalLion([weights(2, 8)], exact_angle=True, **options)
    exact, paper = optimizer.rotation(optimizer.param_groups[0]), plain.leading_rotation(plain.lr, plain.weight_decay)
    assert exact == pytest.approx(rotsim.equilibrium(plain, 10**9).rotation, rel=1e-8)
    data = rotsim.simulate(plain, dim=1024, neurons=16, steps=1200, record_every=100, seed=3)
    square = (data["rotation"].values[:, 4:] ** 2).mean(axis=1)
    measured, error = sqrt(square.mean()), square.std(ddof=1) / square.mean() / 2 / sqrt(len(square))
    allowed = 1 / 1024 + chance.errors(len(square)) * error
    assert abs(measured / exact - 1) < allowed < abs(measured / paper - 1)
    variant = rotsim.Rotational(plain, exact_angle=True)
    assert rotsim.measure.optimizer_spec(optimizer).inner.betas == plain.betas
    assert rotsim.measure.optimizer_spec(optimizer) == variant
    assert rotsim.equilibrium(variant, 1024).rotation == pytest.approx(exact, rel=1e-12)
    rates = np.array([0.0, 0.02, 0.01, 0.02])
    several = variant.leading_rotation(rates, 1.0)
    assert several[1] == several[3] == exact and several[0] == 0.0
    assert several[2] == plain.exact_rotation(0.01, 1.0) < exact
