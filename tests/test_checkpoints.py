"""Checkpoints that a known decay left: norms and angles follow the course, and the decay that was used is found."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import chi2

import rotsim
from rotsim import dataset
from rotsim.cli import main
from rotsim.decay import decay_used
from rotsim.evidence import gather
from rotsim.measure import read_checkpoints
from rotsim.schedules import named
from rotsim.theory.spans import kept_by_averages
from tests import chance

STEPS, EVERY, WARMUP, FINAL = 1500, 75, 100, 0.1
ADAMW = rotsim.AdamW(1e-2, 0.1, betas=(0.9, 0.99))
SGDM = rotsim.SGDM(0.02, 0.05, momentum=0.9)
COURSE = dict(schedule="cosine", warmup_steps=WARMUP, final=FINAL)


def walk(folder, spec, used, seed, every=EVERY, steps=STEPS):
    """Train two layers on scale-invariant noise with torch's own optimizer, and save them as a training does."""
    noise = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.nn.Parameter(0.1 * torch.randn(16, 96, generator=noise)) for name in ("a.weight", "b.weight")
    }
    kind = torch.optim.SGD if isinstance(spec, rotsim.SGDM) else torch.optim.AdamW
    extra = {"momentum": spec.momentum} if isinstance(spec, rotsim.SGDM) else {"betas": spec.betas}
    optimizer = kind(list(weights.values()), lr=spec.lr, weight_decay=used, **extra)
    factor = named("cosine", steps, WARMUP, FINAL)(np.arange(1, steps + 1))
    for step in range(steps + 1):
        if step % every == 0:
            save_file({name: w.detach() for name, w in weights.items()}, folder / f"step_{step}.safetensors")
        if step == steps:
            return
        optimizer.param_groups[0]["lr"] = spec.lr * factor[step]
        for w in weights.values():
            gradient = torch.randn(w.shape, generator=noise)
            square = w.detach().square().sum(dim=1, keepdim=True)
            along = (gradient * w.detach()).sum(dim=1, keepdim=True) / square
            w.grad = (gradient - along * w.detach()) / square.sqrt()
        optimizer.step()


def read(folder, spec, **options):
    return read_checkpoints(folder, spec, steps_from_name=True, **{**COURSE, **options})


@pytest.fixture(scope="module")
def adamw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adamw")
    walk(folder, ADAMW, ADAMW.weight_decay, seed=0)
    return folder


def test_norms_and_angles_follow_the_course_and_the_decay_is_found(adamw):
    trace = read(adamw, ADAMW, scale_invariant=["*"])
    assert dataset.validate(trace).sizes["step"] == STEPS // EVERY
    assert trace["span"].values.tolist() == [EVERY] * (STEPS // EVERY)
    for layer in gather(trace):
        for quarter in layer.quarters:
            assert abs(quarter.error("norm")) < 0.03
            assert abs(quarter.error("rotation")) < 0.05
    used = decay_used(trace)
    assert abs(used.ratio - 1) < chance.errors() * used.standard_error < 0.25
    assert used.verdict == "PASS"


@pytest.mark.slow
def test_its_error_bar_is_as_wide_as_the_scatter(tmp_path):
    """Many short runs: how far ratios are from 1, in units of their error bars, is a standard normal number."""
    scores = []
    for seed in range(12):
        folder = tmp_path / str(seed)
        folder.mkdir()
        walk(folder, ADAMW, ADAMW.weight_decay, seed + 1, every=60, steps=300)
        used = decay_used(read(folder, ADAMW))
        scores.append((used.ratio - 1) / used.standard_error)
    low, high = chi2.isf([1 - chance.share() / 2, chance.SHARE / 2], len(scores))
    assert low < np.sum(np.square(scores)) < high
    assert high < 5 * len(scores)  # an error bar of half the size would fail


@pytest.mark.parametrize("share", [0.0, 0.4, 3.0])
def test_another_decay_is_noticed(share, adamw, tmp_path, capsys):
    """The control: the same weights, of which another decay is claimed, or none was applied."""
    if share:
        claimed = ADAMW.with_rates(ADAMW.lr, ADAMW.weight_decay / share)
        used = decay_used(read(adamw, claimed))
        folder, decay = adamw, claimed.weight_decay
    else:
        walk(tmp_path, ADAMW, 0.0, seed=3)
        used, folder, decay = decay_used(read(tmp_path, ADAMW)), tmp_path, ADAMW.weight_decay
    assert abs(used.ratio - share) < chance.errors() * used.standard_error
    assert used.verdict == "FAIL"
    command = ["checkpoints", str(folder), "--optimizer", "adamw", "--lr", "0.01", "--weight-decay", str(decay)]
    assert main([*command, "--schedule", "cosine", "--warmup", str(WARMUP), "--final", "0.1", "--steps-from-name"]) == 1
    assert "another decay was used" in capsys.readouterr().out


def test_coupled_decay_of_sgd(tmp_path):
    walk(tmp_path, SGDM, SGDM.weight_decay, seed=4, every=50)
    used = decay_used(read(tmp_path, SGDM))
    assert abs(used.ratio - 1) < chance.errors() * used.standard_error < 0.1
    leading = SGDM.lr * SGDM.weight_decay / (1 - SGDM.momentum)  # without the second order 9 % off
    assert rotsim.theory.base.required_theory(SGDM).lasting_decay(np.array([1e-3]))[0] > 1.05 * leading


def test_what_averages_keep_is_what_rotation_over_a_span_says():
    """ρ = (1-ηλ)^span · (1 + kept): two routes to the correlation in equilibrium."""
    for spec, pole in ((ADAMW, 1 - 1e-3), (rotsim.Lion(1e-4, 1.0), 1 - 1e-4)):
        for span in (5, 50, 500):
            angle = rotsim.rotation_over(spec, 256, span)
            per_step, per_turn = kept_by_averages(spec, 256, span)
            kept = np.log(np.cos(angle)) - span * np.log(pole)
            assert per_turn * np.tan(angle) ** 2 == pytest.approx(kept, rel=1e-6)
            one = 2 * (1 - np.cos(rotsim.rotation_over(spec, 256, 1)))
            assert per_step * one == pytest.approx(kept, rel=1e-6)


def test_the_command_saves_a_trace_that_the_report_takes(adamw, tmp_path, capsys):
    output = tmp_path / "trace.nc"
    command = ["checkpoints", str(adamw), "--steps-from-name", "--optimizer", "adamw", "--lr", "0.01", "--betas", "0.9"]
    command += ["0.99", "--weight-decay", "0.1", "--schedule", "cosine", "--warmup", "100", "--final", "0.1"]
    assert main([*command, "--scale-invariant", "*", "--output", str(output)]) == 0
    assert "the 0.1 given was used, as far as" in capsys.readouterr().out
    assert main(["trace", "report", str(output), "--output", str(tmp_path / "report")]) == 0
    assert "applies to 2 of 2 layers and agrees in 2 of them" in capsys.readouterr().out.replace("\n", " ")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "PASS"


def test_torch_files_wrapped_as_trainings_wrap_them(adamw, tmp_path):
    from safetensors.torch import load_file

    for step in (0, 75, 150):
        state = load_file(adamw / f"step_{step}.safetensors")
        wrapped = {f"module._orig_mod.{name}": w for name, w in state.items()} | {"bias": torch.zeros(3)}
        torch.save({"model": wrapped, "iter_num": step, "optimizer": {"a": torch.zeros(4, 4)}}, tmp_path / f"{step}.pt")
        (tmp_path / "hf" / f"checkpoint-{step}").mkdir(parents=True)
        save_file(state, tmp_path / "hf" / f"checkpoint-{step}" / "model.safetensors")
        torch.save({"x": torch.zeros(2, 2)}, tmp_path / "hf" / f"checkpoint-{step}" / "optimizer.pt")
    one = read_checkpoints(tmp_path, ADAMW)
    two = read(tmp_path / "hf", ADAMW, schedule="constant", warmup_steps=0)
    assert one["step"].values.tolist() == [75, 150] and one["layer"].values[0] == "a"
    assert np.array_equal(one["rotation"], two["rotation"]) and np.array_equal(one["norm"], two["norm"])


class Code:
    """A pickle of it runs a command when it is read."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('it was run')",))


def _state():
    return {"a.weight": torch.ones(4, 8)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1.pt", lambda path: torch.save({"a": Code()}, path), "which is code; nothing in it was run"),
        ("1.pt", lambda path: path.write_bytes(pickle.dumps(Code())), "nothing in it was run"),
        ("1.pt", lambda path: path.write_bytes(b""), "no whole PyTorch file"),
        ("1.pt", lambda path: path.write_bytes(b"PK\x03\x04" + b"0" * 100), "no whole PyTorch file"),
        ("1.pt", lambda path: torch.save([torch.ones(2, 2)], path), "holds a list"),
        ("1.pt", lambda path: torch.save({"a": torch.ones(1).expand(1 << 20, 1 << 20)}, path), "fewer numbers"),
        ("1.safetensors", lambda path: path.write_bytes(b"\xff" * 64), "no whole safetensors file"),
        ("1.safetensors", lambda path: save_file({"a.weight": torch.ones(9)}, path), "no weights of two dimensions"),
        ("1.safetensors", lambda path: save_file({"b.weight": torch.ones(4, 8)}, path), "share no parameter"),
        ("1.safetensors", lambda path: save_file({"a.weight": torch.ones(4, 9)}, path), "share no parameter"),
        ("one.safetensors", lambda path: save_file(_state(), path), "no number in its name"),
        ("0.pt", lambda path: torch.save(_state(), path), "are both of step 0"),
    ],
)  # fmt: skip
def test_hostile_checkpoints_end_in_one_line(name, content, message, tmp_path, capsys):
    save_file(_state(), tmp_path / "0.safetensors")
    content(tmp_path / name)
    command = [
        "checkpoints",
        str(tmp_path),
        "--optimizer",
        "adamw",
        "--lr",
        "0.01",
        "--weight-decay",
        "0.1",
        "--steps-from-name",
    ]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1, said


def test_weights_that_are_not_finite_count_for_nothing(adamw, tmp_path, capsys):
    from safetensors.torch import load_file

    for step in (0, 75, 150, 225):
        state = load_file(adamw / f"step_{step}.safetensors")
        state["b.weight"][:] = torch.nan
        state["a.weight"][0, 0] = torch.inf if step == 150 else 1.0
        save_file(state, tmp_path / f"step_{step}.safetensors")
    used = decay_used(read(tmp_path, ADAMW, schedule="constant", warmup_steps=0))
    assert np.isnan(used.layers[1].ratio) and np.isfinite(used.ratio)
    for step in (0, 75, 150, 225):
        save_file({"a.weight": torch.full((4, 8), torch.nan)}, tmp_path / f"step_{step}.safetensors")
    assert (
        main(
            [
                "checkpoints",
                str(tmp_path),
                "--optimizer",
                "adamw",
                "--lr",
                "0.01",
                "--weight-decay",
                "0.1",
                "--steps-from-name",
            ]
        )
        == 2
    )
    assert "no layer has finite norms" in capsys.readouterr().err


def test_what_cannot_be_told(adamw):
    with pytest.raises(rotsim.DatasetError, match="does not say of which step it is"):
        read_checkpoints(adamw, ADAMW)
    with pytest.raises(rotsim.InvalidInput, match="no folder at"):
        read(adamw / "none", ADAMW)
    with pytest.raises(rotsim.InvalidInput, match="`steps` must be at least 1500"):
        read(adamw, ADAMW, steps=100)
    with pytest.raises(rotsim.InvalidInput, match="names no layer by 'mlp'"):
        read(adamw, ADAMW, scale_invariant=["mlp"])
    with pytest.raises(rotsim.InvalidInput, match="depends on its gradients"):
        decay_used(read(adamw, rotsim.AdamL2(1e-2, 0.1)))
    with pytest.raises(rotsim.InvalidInput, match="there is none to fit"):
        decay_used(read(adamw, rotsim.AdamW(1e-2, 0.0)))
