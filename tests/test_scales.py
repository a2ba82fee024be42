"""Gradient norms at every step: what is kept, how exactly, and for how long."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rotsim import dataset  # noqa: E402
from rotsim.measure import Lion, Recorder  # noqa: E402
from rotsim.measure import scales as module  # noqa: E402
from rotsim.measure.scales import ScaleSampler  # noqa: E402

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("one_thread")]


def train(steps, recorded=True, before=lambda step, model: None, **options):
    """A model on noise of changing size; its trace and the gradient norms of every row, (rows, steps) per parameter."""
    draw = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.Linear(20, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    optimizer = Lion(model.parameters(), 1e-3, weight_decay=1.0)
    recorder, norms = Recorder(model, optimizer, 10, 50, **options), {"0.weight": [], "1.weight": []}
    if recorded:
        recorder.start()
    for step in range(1, steps + 1):
        for parameter in model.parameters():
            size = 10 ** torch.randn((), generator=draw)
            parameter.grad = size * torch.randn(parameter.shape, generator=draw)
        before(step, model)
        for name, kept in norms.items():
            gradient = model.get_parameter(name).grad
            kept.append(np.full(20 if name[0] == "0" else 3, np.nan) if gradient is None else gradient.norm(dim=1))
        optimizer.step()
    recorder.close()
    return model, recorder, {name: np.array(kept).T for name, kept in norms.items()}


def test_norms_are_kept_to_an_eighth_of_an_octave_through_a_file(tmp_path):
    def before(step, model):
        if step == 300:
            model[0].weight.grad = None
        if step == 301:
            model[1].weight.grad.zero_()

    _, recorder, norms = train(523, before=before, split={"0.weight": {"a": 4, "b": 16}})
    trace = dataset.load(recorder.save(tmp_path / "trace.nc"))
    assert trace["tick"].values.tolist() == list(range(1, 524))
    for layer, rows in {
        "0.weight[a]": range(4),
        "0.weight[b]": np.linspace(4, 19, 8).astype(int),
        "1.weight": range(3),
    }.items():
        series, _ = dataset.gradient_series(trace, layer)
        true = norms[layer[:8]][list(rows)]
        assert series.shape == true.shape and (np.isnan(series) == np.isnan(true)).all()
        np.testing.assert_allclose(series, true, rtol=2 ** (1 / 16) - 1 + 1e-6)
        assert (series == 0).sum() == (3 if layer == "1.weight" else 0)
    assert dataset.gradient_series(trace, "2.weight")[0].shape == (0, 523)
    assert dataset.gradient_series(trace.drop_vars("gradient_log2"), "1.weight")[0].size == 0


def test_training_is_the_same_bit_for_bit_and_other_optimizers_keep_nothing():
    ends = [train(60, recorded)[0] for recorded in (True, False)]
    assert all(torch.equal(*pair) for pair in zip(*(end.parameters() for end in ends), strict=True))
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), weight_decay=0.1)
    with Recorder(layer, optimizer, 1, 1) as recorder:
        layer(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    assert "gradient_log2" not in recorder.dataset()


def test_memory_is_bounded_and_a_layer_may_join(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 16)
    sampler, device = ScaleSampler(count=2, length=40), torch.device("cpu")
    first, second = torch.full((5, 3), 2.0), torch.full((4, 4), 0.5)
    for _ in range(200):
        sampler.add([first], [["a"] * 5], device)
    for _ in range(20):
        sampler.add([first, second], [["a"] * 5, ["b"] * 4], device)
    kept = sampler.series()
    assert kept.shape[0] == 4 and 40 <= kept.shape[1] < 40 + 16
    assert (kept[:2] == round(8 * np.log2(12**0.5))).all()
    assert (kept[2:, -20:] == 0).all() and (kept[2:, :-20] == dataset.UNKNOWN).all()
