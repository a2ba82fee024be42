"""Layers that people have: where their neurons are, what they are called, and how many of them are recorded."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rotsim  # noqa: E402
from rotsim.cli import main  # noqa: E402
from rotsim.dataset import spec_of  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Recorder  # noqa: E402
from rotsim.measure.neurons import Neurons  # noqa: E402
from rotsim.theory.traces import predict_layer  # noqa: E402

nn = torch.nn
pytestmark = pytest.mark.usefixtures("one_thread")


class Conv1D(nn.Module):
    """As in transformers: the weight is kept as (inputs, outputs)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(0.1 * torch.randn(nx, nf))

    def forward(self, x):
        return x @ self.weight


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn = Conv1D(24, 8)
        self.experts = nn.Parameter(0.1 * torch.randn(3, 5, 8))  # three matrices of five rows
        self.position = nn.Parameter(0.1 * torch.randn(1, 6, 8))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.depthwise = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose1d(8, 4, 2)
        self.grouped = nn.ConvTranspose1d(8, 6, 2, groups=2)
        self.pairs = nn.Bilinear(8, 8, 4)
        self.normed = torch.nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 4, 1))
        self.rotated = nn.Linear(8, 7, bias=False)

    def forward(self, x):
        x = x + self.position + self.cls_token
        mixed = torch.einsum("btd,ekd->btek", x, self.experts).flatten(2)
        across = x.transpose(1, 2)
        convolved = self.up(self.depthwise(across)).square().mean() + self.normed(across).mean()
        convolved = convolved + self.grouped(across).square().mean() + self.pairs(x, x).square().mean()
        return self.c_attn(x).square().mean() + mixed.square().mean() + convolved + self.rotated(x).square().mean()


def recorded(model, steps=4, **options):
    """A trace of windows of one step, and the weights before each and after the last."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    draw, kept = torch.Generator().manual_seed(0), []
    with Recorder(model, optimizer, interval=1, window=1, lags=0, **options) as recorder:
        for _ in range(steps):
            kept.append({name: p.detach().double().numpy().copy() for name, p in model.named_parameters()})
            optimizer.zero_grad()
            model(torch.randn(2, 6, 8, generator=draw)).backward()
            optimizer.step()
    kept.append({name: p.detach().double().numpy().copy() for name, p in model.named_parameters()})
    return recorder, kept


def angles(kept, name, rows):
    """Of each neuron in each step, from weights that `rows` reads as a table."""
    table = np.array([rows(weights[name]) for weights in kept])
    unit = table / np.linalg.norm(table, axis=-1, keepdims=True)
    return np.arccos((unit[1:] * unit[:-1]).sum(axis=-1)).T


ROWS = {
    "c_attn.weight": lambda w: w.T,
    "experts": lambda w: w.reshape(15, 8),
    "position": lambda w: w.reshape(6, 8),
    "depthwise.weight": lambda w: w.reshape(8, 3),
    "up.weight": lambda w: w.transpose(1, 0, 2).reshape(4, 16),
    "grouped.weight": lambda w: w.reshape(2, 4, 3, 2).transpose(0, 2, 1, 3).reshape(6, 8),
    "pairs.weight": lambda w: w.reshape(4, 64),
    "normed.parametrizations.weight.original1": lambda w: w.reshape(4, 8),
    "rotated.weight": lambda w: w,
}


def test_every_layer_is_read_by_its_own_neurons():
    torch.manual_seed(0)
    recorder, kept = recorded(Layers())
    trace = recorder.dataset()
    names = np.array([name.split("[")[0] for name in trace["layer"].values])
    for name, rows in ROWS.items():
        here = names == name
        expected = angles(kept, name, rows)
        assert trace["fan_in"].values[here].tolist() == [rows(kept[0][name]).shape[1]] * len(expected)
        np.testing.assert_allclose(trace["rotation"].values[here], expected, rtol=2e-3, err_msg=name)
    assert set(trace["layer"].values[names == "c_attn.weight"]) == {f"c_attn.weight[{x}]" for x in "qkv"}
    assert recorder.skipped["cls_token"].startswith("one vector")
    inputs = angles(kept, "c_attn.weight", lambda w: w)  # negative control: rows of GPT-2's weights are no neurons
    assert trace["rotation"].values[names == "c_attn.weight"].shape != inputs.shape


def test_the_axes_of_neurons_can_be_given():
    torch.manual_seed(0)
    recorder, kept = recorded(Layers(), axes={"experts": (0, 2), "rotated.weight": 1})
    trace = recorder.dataset()
    for name, rows in {
        "experts": lambda w: w.transpose(0, 2, 1).reshape(24, 5),
        "rotated.weight": lambda w: w.T,
    }.items():
        found = trace["rotation"].values[trace["layer"].values == name]
        np.testing.assert_allclose(found, angles(kept, name, rows), rtol=2e-3)
    model = Layers()
    optimizer = torch.optim.AdamW(model.parameters())
    for axes, message in (
        ({"experts": (0, 1, 2)}, "leave one for the weights"),
        ({"experts": 3}, "must be one axis of shape"),
        ({"expert": 0}, "`axes` names 'expert', which no recorded parameter ends in"),
    ):
        with pytest.raises(InvalidInput, match=message):
            Recorder(model, optimizer, axes=axes)
    with pytest.raises(InvalidInput, match="`rows` must be"):
        Recorder(model, optimizer, rows=0)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3000, 8)
        self.head = nn.Linear(8, 3, bias=False)

    def forward(self, x):
        tokens = (x[..., 0].abs() * 1e4).long() % 3000
        return self.head(self.table(tokens)).square().mean()


def test_a_large_table_is_recorded_by_evenly_spaced_rows(tmp_path, capsys):
    def trace(rows):
        torch.manual_seed(0)
        return recorded(Words(), rows=rows)[0].dataset()

    some, every = trace(100), trace(4096)
    places = np.append(np.linspace(0, 2999, 100).astype(int), 3000 + np.arange(3))
    assert some.sizes["neuron"] == 103 and every.sizes["neuron"] == 3003
    for name in ("norm", "rotation", "gradient_norm", "radial", "initial_norm"):
        np.testing.assert_array_equal(some[name].values, every[name].values[places])
    assert spec_of(some)["sampled_rows"] == {"table.weight": 3000} and spec_of(every)["sampled_rows"] == {}
    path = rotsim.dataset.save(some, tmp_path / "words.nc")
    assert main(["trace", "report", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Some neurons, evenly spaced or of one process, stand for all: table: 100 of 3000 neurons." in shown


@pytest.mark.parametrize("optimizer", ["lion", "muon"])
def test_optimizers_that_are_read_in_other_ways_take_the_same_neurons(optimizer):
    from rotsim.measure import Lion

    torch.manual_seed(0)
    model = Words()
    made = {
        "lion": lambda: Lion(model.parameters(), lr=1e-3, weight_decay=0.1),
        "muon": lambda: torch.optim.Muon(model.parameters(), lr=1e-3, weight_decay=0.1),
    }[optimizer]()
    with Recorder(model, made, interval=1, window=2, rows=50) as recorder:
        for step in range(6):
            made.zero_grad()
            model(torch.full((4, 5, 8), 0.01 * (step + 1))).backward()
            made.step()
    trace = recorder.dataset()
    assert (trace["layer"].values == "table.weight").sum() == 50
    if optimizer == "muon":
        assert predict_layer(trace, "table.weight").matrix_rows == 3000
    else:
        assert list(trace["row_layer"].values).count("table.weight") == 8


def test_the_neurons_of_a_parameter():
    neurons = Neurons(torch.Size([3, 5, 8]), (0, 2), most=10)
    assert (neurons.total, neurons.dim, neurons.count) == (24, 5, 10)
    tensor = torch.arange(120.0).reshape(3, 5, 8)
    assert neurons.rows(tensor)[-1].tolist() == tensor[2, :, 7].tolist()
    assert Neurons(torch.Size([2, 3])).rows(torch.eye(2, 3).to_sparse()).tolist() == torch.eye(2, 3).tolist()


class Adapted(nn.Module):
    """A frozen matrix and a pair beside it, under the names of peft."""

    def __init__(self, rank=2):
        super().__init__()
        self.base = nn.Linear(8, 6, bias=False).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, 6, bias=False)})

    def forward(self, x):
        return (self.base(x) + self.lora_B["default"](self.lora_A["default"](x))).square().mean()


@pytest.mark.parametrize("rows", [4096, 3])
def test_the_product_of_a_pair_is_a_layer_beside_it(rows, tmp_path, capsys):
    """Norm, angle and gradient of BA, from the factors before and after each step, in NumPy."""
    torch.manual_seed(2)
    model, path = Adapted(), tmp_path / "lora.nc"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    kept, gradients, pair = [], [], [model.lora_B["default"].weight, model.lora_A["default"].weight]

    def factors(of):
        return tuple(of(parameter).double().numpy().copy() for parameter in pair)

    with Recorder(model, optimizer, interval=1, window=1, lags=2, rows=rows, path=path):
        for _ in range(20):
            optimizer.zero_grad()
            model(torch.randn(4, 6, 8)).backward()
            kept.append(factors(lambda p: p.detach()))
            gradients.append(factors(lambda p: p.grad))
            optimizer.step()
        kept.append(factors(lambda p: p.detach()))
    trace = rotsim.load(path)
    layer = trace.isel(neuron=trace["layer"].values == "lora_BA.default.weight")
    chosen = np.linspace(0, 5, min(rows, 6)).astype(int)
    products = np.array([b @ a for b, a in kept])[:, chosen]
    before, after = products[:-1], products[1:]
    norms = [np.linalg.norm(x, axis=2) for x in (before, after)]
    cosine = (before * after).sum(2) / norms[0] / norms[1]
    slope = np.array([gb @ a + b @ ga for (b, a), (gb, ga) in zip(kept, gradients, strict=False)])[:, chosen]
    np.testing.assert_allclose(layer["norm"].T, norms[1], rtol=1e-5)
    np.testing.assert_allclose(layer["rotation"].T, np.arccos(np.minimum(cosine, 1.0)), rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(layer["update_rms"].T, np.linalg.norm(after - before, axis=2), rtol=1e-4)
    np.testing.assert_allclose(layer["gradient_norm"].T, np.linalg.norm(slope, axis=2), rtol=1e-4)
    np.testing.assert_allclose(layer["initial_norm"], norms[0][0], rtol=1e-5)
    alone = trace.isel(neuron=trace["layer"].values == "lora_B.default.weight")  # its factor is another layer
    assert alone["fan_in"].values[0] == 2 and layer["fan_in"].values[0] == 8
    assert main(["trace", "report", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "lora_BA.default" in shown and "the product of two trained matrices" in " ".join(shown.split())


def test_matrices_that_do_not_meet_are_no_product():
    from rotsim.measure.products import products_of

    a, b = torch.zeros(2, 8), torch.zeros(6, 2)
    assert [name for name, _ in products_of({"x.lora_A": a, "x.lora_B": b})] == ["x.lora_BA"]
    for found in ({"x.lora_A": a}, {"x.lora_A": a, "x.lora_B": torch.zeros(6, 3)}, {"x.first": a, "x.second": b}):
        assert not list(products_of(found))
    [(_, convolution)] = products_of({"lora_A": torch.zeros(2, 4, 3, 3), "lora_B": torch.zeros(6, 2, 1, 1)})
    assert convolution.shape == (6, 36)
