"""Conversion: what is kept is kept, by two routes; conventions of decay by one step of each; what no pair keeps."""

import json

import pytest

import rotsim
from rotsim.cli import main
from rotsim.theory.base import theory_of
from rotsim.theory.conversion import CONVENTIONS, as_torch, convert, decays, pace

ADAMW = rotsim.AdamW(lr=3e-4, weight_decay=0.1)
DISPLAYED = {"rotation": "rotation", "time": "ema_steps", "norm": "norm", "rms": "rms"}


@pytest.mark.parametrize("to", rotsim.OPTIMIZERS)
@pytest.mark.parametrize("keep", [("rotation", "norm"), ("time", "rms"), ("rotation", "lr"), ("time", "weight_decay")])
def test_what_is_kept_is_that_of_both(to, keep):
    if to == "adam_l2" and keep == ("time", "weight_decay"):
        return  # its memory and norm hang on lr·weight_decay/√v alike: near the end of what rates reach
    found = convert(ADAMW, to, keep=keep, dim=256)
    for name in keep:
        if name in DISPLAYED:
            ours, theirs = (getattr(side, DISPLAYED[name]) for side in (found.before, found.after))
            assert theirs == pytest.approx(ours, rel=1e-8)
        else:
            assert getattr(found.target, name) == getattr(ADAMW, name)
    again = rotsim.equilibrium(found.target, 256)
    assert (again.rotation, again.norm) == (found.after.rotation, found.after.norm)


def test_a_conversion_there_and_back_is_none():
    there = convert(ADAMW, "lion").target
    back = convert(there, "adamw").target
    assert (back.lr, back.weight_decay) == pytest.approx((ADAMW.lr, ADAMW.weight_decay), rel=1e-7)


@pytest.mark.parametrize("spec", [spec.examples()[0] for spec in rotsim.OPTIMIZERS.values()], ids=lambda s: s.name)
def test_a_half_life_halves_the_correlation_of_weights(spec):
    """By the other route, correlations at a lag: what is left between two and three half-lives is one half."""
    given = rotsim.Isotropic(1.0)
    half_life = round(pace(spec, 64, given).half_life)
    left = [1 - theory_of(spec).fallen(64, given.power(64), n * half_life) for n in (2, 3)]
    assert left[1] / left[0] == pytest.approx(0.5, rel=5e-3)


def test_time_and_rotation_take_a_momentum():
    found = convert(ADAMW, "lion", keep=("rotation", "time"))
    assert found.kept == ("rotation", "time", "norm") and found.target.betas[0] != 0.9
    for name in ("rotation", "ema_steps", "norm"):
        assert getattr(found.after, name) == pytest.approx(getattr(found.before, name), rel=1e-8)


def test_where_no_pair_keeps_both_the_nearest_is_named():
    with pytest.raises(rotsim.InvalidInput, match=r"no Lion reaches.*Nearest.*Lion\(.*times as long"):
        convert(rotsim.SGDM(0.1, 1e-5, 0.998), "lion", keep=("rotation", "time"))


@pytest.mark.parametrize(
    "source", [ADAMW, rotsim.Lion(1e-3, 1.0), rotsim.SGDM(0.1, 1e-3), rotsim.Cautious(rotsim.NAdamW(1e-2, 0.1))],
    ids=lambda o: o.label,
)  # fmt: skip
def test_a_hyperball_turns_as_what_it_comes_from_and_back(source):
    found = convert(source, "hyperball", dim=256)
    assert found.kept == ("rotation",) and found.target.lr == pytest.approx(found.before.relative_lr, rel=1e-6)
    turned = rotsim.equilibrium(found.target, 256).rotation
    assert turned == pytest.approx(rotsim.equilibrium(source, 256).rotation, rel=1e-8)
    assert found.after.relative_lr == pytest.approx(found.target.lr, rel=1e-9)
    assert found.after.update_ratio == pytest.approx(found.before.update_ratio, rel=1e-3)
    other = convert(source, "hyperball", keep=["time"], dim=256)
    assert other.after.ema_steps == pytest.approx(other.before.ema_steps, rel=1e-6)
    assert (abs(other.target.lr / found.target.lr - 1) < 1e-6) == (source.decay == "decoupled" and not source.cautious)
    back = convert(found.target, source.plain.name, lr=source.lr, dim=256)
    assert back.target.to_dict() | {"weight_decay": 0} == source.plain.to_dict() | {"weight_decay": 0}
    assert rotsim.equilibrium(back.target, 256).rotation == pytest.approx(turned, rel=1e-8)


def step_of(convention, lr, weight_decay, max_lr):
    """What a step takes of the weights, as each convention is written in its own words."""
    return {
        "decoupled": lr * weight_decay,
        "independent": weight_decay,
        "corrected": lr**2 / max_lr * weight_decay,
        "relative": weight_decay * lr / max_lr,
    }[convention]


@pytest.mark.parametrize("convention", [name for name in CONVENTIONS if name != "l2"])
def test_conventions_take_the_same_of_a_step(convention):
    found = as_torch(rotsim.Lion(2e-4, 0.3), convention, 1e-3)
    assert found.lr * found.weight_decay == pytest.approx(step_of(convention, 2e-4, 0.3, 1e-3))
    assert decays(found, 5.0)[convention] == pytest.approx(0.3)


def test_an_independent_decay_is_divided_by_the_rate():
    assert as_torch(rotsim.AdamW(1e-3, 1e-4), "independent").weight_decay == pytest.approx(0.1)
    assert decays(rotsim.SGDM(0.1, 1e-3)) == {"l2": 1e-3}


def test_width_and_given_rates():
    """A width 16 times as large at lr/16: a quarter of the rotation under PyTorch's decay, all of it beside λ·16."""
    given = {"to_dim": 16 * 256, "dim": 256, "lr": 3e-4 / 16}
    plain = convert(ADAMW, "adamw", weight_decay=0.1, **given)
    independent = convert(ADAMW, "adamw", weight_decay=1.6, **given)
    assert plain.kept == independent.kept == ()
    assert plain.after.rotation / plain.before.rotation == pytest.approx(0.25, rel=1e-3)
    assert independent.after.rotation / independent.before.rotation == pytest.approx(1, rel=1e-3)
    assert convert(ADAMW, "adamw", weight_decay=1.6, **given | {"lr": 3e-4}).target.betas == ADAMW.betas


def test_a_layer_for_muon_has_its_shape(capsys, tmp_path):
    """Rotation, norm and time are those of `equilibrium` for that shape; a square layer asks for another setting."""
    found = convert(ADAMW, "muon", keep=("rotation", "time"), dim=256, rows=64)
    here, there = rotsim.equilibrium(ADAMW, 256), rotsim.equilibrium(found.target, 256, rows=64)
    assert (there.rotation, there.norm) == pytest.approx((here.rotation, here.norm), rel=1e-6)
    assert found.target.lr * found.target.weight_decay == pytest.approx(ADAMW.lr * ADAMW.weight_decay, rel=1e-6)
    assert abs(rotsim.equilibrium(found.target, 256).rotation / here.rotation - 1) > 0.1
    back = convert(found.target, "adamw", keep=("rotation", "time"), dim=256, rows=64, betas=ADAMW.betas)
    assert back.target.lr == pytest.approx(ADAMW.lr, rel=1e-5)
    words = "convert adamw --lr 3e-4 --weight-decay 0.1 --to muon --shape 64x256 --keep rotation,time"
    assert main([*words.split(), "--output", str(tmp_path / "pair.json")]) == 0
    saved = json.loads((tmp_path / "pair.json").read_text())
    assert saved["target"]["lr"] == found.target.lr and (saved["rows"], saved["dim"]) == (64, 256)
    assert "matrices of 64 x 256" in " ".join(capsys.readouterr().out.split())
    assert main([*words.replace("64x256", "64").split()]) == 2
    assert "'64' is not ROWSxCOLUMNS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(rows=64), "`rows` is for an optimizer that acts on matrices"),
        (dict(to="muon", rows=1), "`rows` must be >= 2; got 1"),
        (dict(to="moon"), "optimizer 'moon' is unknown"),
        (dict(to="rotational"), "`family` must be"),
        (dict(keep=["rotation"]), "`keep` must name as many things as are free"),
        (dict(keep=["norm", "rms"]), "`keep` must have norm or rms, not both"),
        (dict(keep=["lr", "norm"], lr=1e-3), "`keep` and a given value both set lr"),
        (dict(keep=["speed", "norm"]), r"`keep\[0\]` must be 'rotation'"),
        (dict(convention="l2"), "`convention` of AdamW must be any but l2"),
        (dict(convention="relative", max_lr=1e-5), "`max_lr` must be at least lr"),
        (dict(momentum=0.9), "Lion has no hyperparameter 'momentum'"),
        (dict(to_dim=1), "`to_dim` must be >= 2; got 1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        convert(ADAMW, **{"to": "lion"} | arguments)
    with pytest.raises(rotsim.InvalidInput, match="must be l2"):
        convert(rotsim.SGDM(0.1, 1e-3), "lion", convention="decoupled")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: convert(ADAMW, "hyperball", keep=["norm"]), "`keep` must have no norm where a hyperball keeps any"),
        (lambda: convert(rotsim.Hyperball(rotsim.AdamW(0.1, 0.0)), "adamw"), "`keep` must have no norm"),
        (lambda: convert(ADAMW, "hyperball", weight_decay=0.1), "AdamW has no hyperparameter 'weight_decay'"),
        (lambda: convert(ADAMW, "hyperball", keep=["rotation", "time"]), "`keep` must name as many things"),
        (lambda: convert(rotsim.AdEMAMix(0.02, 0.1), "hyperball"), "`inner` must be a spec that keeps two averages"),
        (lambda: convert(rotsim.Rotational(ADAMW), "lion"), "a rotational variant keeps any norm"),
    ],
)
def test_what_a_hyperball_cannot_keep(make, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        make()


def test_the_command_prints_and_saves_it(tmp_path, capsys):
    words = "convert adamw --lr 3e-4 --weight-decay 0.1 --to sgdm --set momentum=0.8 --keep rotation,norm"
    path = tmp_path / "pair.json"
    more = ["--steps-per-epoch", "1000", "--tokens-per-step", "5e5", "--output", str(path)]
    assert main([*words.split(), *more]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    expected = convert(ADAMW, "sgdm", momentum=0.8)
    assert f"weight decay, l2 - {expected.target.weight_decay:.5g} -" in shown and "EMA time, epochs 33.333" in shown
    assert "EMA time, tokens 1.6667e+10" in shown
    saved = json.loads(path.read_text())
    assert saved["target"]["lr"] == expected.target.lr and saved["kept"] == ["rotation", "norm"]
    assert saved["after"] == expected.after.to_dict()


def test_the_command_hands_on_what_it_is_told(capsys):
    words = "convert adamw --lr 1e-3 --weight-decay 1e-4 --convention independent --to lion --set betas=0.95,0.98"
    assert main([*words.split(), "--set", "lr=1e-4"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "betas=(0.95, 0.98)) keeps rotation" in shown and "weight decay, decoupled 0.1 " in shown
    assert main([*words.split(), "--set", "betas"]) == 2
    assert "`--set` takes NAME=VALUE" in capsys.readouterr().err


def convert_prints(capsys, *words):
    assert main(["convert", "adamw", "--lr", "3e-4", "--weight-decay", "0.1", *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_conversion_says_what_it_assumed(capsys):
    """Of the layer and of the gradients; and that the answer depends on it, where it does."""
    shown = convert_prints(capsys, "--to", "sgdm", "--dim", "64", "--scale", "2")
    assert "keeps rotation, norm; dim 64, scale-invariant gradients of scale 2" in shown
    assert "These rates depend on the gradients' scale and on dim" in shown
    shown = convert_prints(capsys, "--to", "lion", "--to-dim", "64")
    assert "dim 1024 → dim 64, scale-invariant gradients of scale 1" in shown and "These rates depend" not in shown
    shown = convert_prints(capsys, "--to", "muon")
    assert "matrices of 1024 x 1024" in shown and "Muon's rates are those of this shape" in shown
    assert "the last μ, 0.9" in convert_prints(capsys, "--to", "nadamw")
