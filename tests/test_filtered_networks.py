"""NAdamW and AdEMAMix under real gradients: what a memory does through their filter, and small networks under both."""

import numpy as np
import pytest

import rotsim
from rotsim.diagnosis import diagnose
from rotsim.gradients import Autocorrelated
from rotsim.theory.base import theory_of

LAGS = np.arange(65)
SPECS = (
    rotsim.NAdamW(0.01, 1e-3, (0.9, 0.9999), eps=0.0, momentum_decay=1.0),
    rotsim.AdEMAMix(0.01, 1e-3, (0.8, 0.9999, 0.95), 2.0, eps=0.0),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("correlation", [0.6, -0.4])
def test_what_a_memory_does_is_that_of_the_walk(spec, correlation):
    """By sums over the measured autocorrelation, and by the linear walk of `equilibrium` for slow decay and v."""
    turned, grown = theory_of(spec).correlation_factors(correlation**LAGS)
    white, other = (rotsim.equilibrium(spec, 10**6, law) for law in (None, Autocorrelated(correlation)))
    assert turned == pytest.approx(other.rotation / white.rotation, rel=3e-3)
    assert grown == pytest.approx(other.norm / white.norm, rel=3e-3)
    plain = theory_of(rotsim.AdamW(spec.lr, spec.weight_decay, spec.betas[:2])).correlation_factors(correlation**LAGS)
    assert max(abs(plain[0] / turned - 1), abs(plain[1] / grown - 1)) > 0.01  # negative control: one average


def test_of_one_average_it_is_that_of_adamw():
    autocorrelation = 0.5 * 0.7**LAGS + 0.5 * (LAGS == 0)
    one = theory_of(rotsim.AdEMAMix(0.01, 0.1, (0.9, 0.99, 0.5), 0.0))
    turned, grown = one.correlation_factors(autocorrelation)
    assert turned == pytest.approx(1.0) and grown**2 == pytest.approx(one.average_power(autocorrelation))
    assert theory_of(SPECS[0]).correlation_factors(1.0 * (LAGS == 0)) == pytest.approx((1.0, 1.0))


@pytest.mark.slow
@pytest.mark.machine
@pytest.mark.parametrize("name", ["nadamw", "ademamix"])
def test_a_small_network_is_claimed_and_another_learning_rate_is_not(name):
    torch = pytest.importorskip("torch")
    from experiments.networks.groups import NETWORKS
    from experiments.training import loop
    from rotsim.measure import Recorder

    class AdEMAMix(torch.optim.Optimizer):
        """Pagliardini et al. 2024, without warm-up."""

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                beta1, beta2, beta3 = group["betas"]
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state |= {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_slow", "exp_avg_sq")}
                        state["step"] = 0
                    state["step"] += 1
                    state["exp_avg"].lerp_(p.grad, 1 - beta1)
                    state["exp_avg_slow"].lerp_(p.grad, 1 - beta3)
                    state["exp_avg_sq"].lerp_(p.grad.square(), 1 - beta2)
                    root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
                    average = state["exp_avg"] / (1 - beta1 ** state["step"]) + group["alpha"] * state["exp_avg_slow"]
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * average / root)

    with loop.one_thread():
        model, loss = NETWORKS["digits"].make(0)
        matrices, rest = ([p for p in model.parameters() if (p.ndim == 2) == two] for two in (True, False))
        groups = [{"params": matrices, "weight_decay": 0.5}, {"params": rest, "weight_decay": 0.0}]
        if name == "nadamw":
            optimizer = torch.optim.NAdam(groups, 2e-3, betas=(0.9, 0.99), decoupled_weight_decay=True)
            given = {}
        else:
            defaults = {"lr": 2e-3, "betas": (0.9, 0.99, 0.99), "alpha": 2.0, "eps": 1e-8}
            optimizer = AdEMAMix(groups, defaults)
            given = {"spec": rotsim.AdEMAMix(2e-3, 0.5, defaults["betas"], 2.0)}
        with Recorder(model, optimizer, 5, 100, **given) as recorder:
            for _ in loop.train(optimizer, loss, 2500):
                pass
    trace = recorder.dataset()
    right = {layer.layer: layer for layer in diagnose(trace).layers}
    first = right["hidden0.weight"]
    assert first.verdict == "applies" and abs(first.ratio - 1) < 0.08 and abs(first.norm_ratio - 1) < 0.08
    assert right["head.weight"].verdict == "scale-sensitive"  # which nothing normalises
    hidden = [layer for key, layer in right.items() if key.startswith("hidden")]
    assert all(layer.verdict in ("applies", "autocorrelated") for layer in hidden)
    wrong = trace.copy(deep=True)
    for key in [key for key in wrong.variables if str(key).startswith(("lr", "window_lr"))]:
        wrong[key] = wrong[key] * 1.5
    other = {layer.layer: layer for layer in diagnose(wrong).layers}["hidden0.weight"]
    assert abs(other.ratio - 1) > 0.15  # negative control: claims of rotation allow 10 %
