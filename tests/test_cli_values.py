"""What the command line hands to the public functions, and what it prints of their answers: value by value."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from types import SimpleNamespace

import click
import numpy as np
import pytest

import rotsim
import rotsim.theory.approach  # else first imported while what it imports is replaced
import rotsim.verify
from rotsim import dataset
from rotsim.cli import cli, converting, main, sweeping
from rotsim.cli.values import Shape
from rotsim.errors import InvalidInput
from rotsim.theory.schedules import constant, cosine, linear, warmup, wsd

ADAMW = ["adamw", "--lr", "1e-2", "--weight-decay", "0.1"]
SPEC = rotsim.AdamW(1e-2, 0.1)


class Stopped(Exception):
    """Raised in place of the work, once its arguments are known."""


@pytest.fixture
def handed(monkeypatch):
    """Run a command with a public function replaced; return what it was given."""

    def run(function, arguments):
        seen = SimpleNamespace()

        def spy(*given, **named):
            seen.given, seen.named = given, named
            raise Stopped

        monkeypatch.setattr(function, spy)
        with pytest.raises(Stopped):
            main(arguments)
        return seen

    return run


def defaults(command, *path):
    for name in path:
        command = command.get_command(click.Context(command), name)
    return {option.name: option.default for option in command.params if isinstance(option, click.Option)}


def test_the_defaults_are_those_of_the_functions():
    assert defaults(cli, "simulate", "adamw").items() >= {
        "dim": 1024, "gradient": "scale-invariant", "neurons": 64, "steps": 20_000, "seed": 0,
        "initial_norm": 1.0, "record_every": 100, "dtype": "float32", "engine": "auto",
        "betas": (0.9, 0.999), "eps": 1e-8,
    }.items()  # fmt: skip
    assert defaults(cli, "predict", "sgdm").items() >= {
        "dim": 1024, "steps": 20_000, "initial_norm": 1.0, "schedule": "constant", "warmup_steps": 0,
        "momentum": 0.9,
    }.items()  # fmt: skip
    assert defaults(cli, "transfer", "lion").items() >= {
        "batch_factor": 1.0, "steps_factor": 1.0, "betas": (0.9, 0.99)
    }.items()  # fmt: skip
    assert defaults(cli, "plan")["dim"] == 1024 and defaults(cli, "verify")["seed"] == 0


def test_what_a_command_and_its_function_share_has_one_default():
    """Of all commands that hand their options on; a number, a truth value or a tuple of numbers."""
    compared = {}
    for name, function in {
        "simulate": rotsim.simulate, "predict": rotsim.predict, "equilibrium": rotsim.equilibrium,
        "transfer": rotsim.transfer, "convert": rotsim.convert, "plan": rotsim.plan, "animate": rotsim.animate,
        "map": rotsim.plot_map, "verify": rotsim.verify.run,
    }.items():  # fmt: skip
        command = cli.commands[name]
        paths = [(name, each) for each in rotsim.OPTIMIZERS] if isinstance(command, click.Group) else [(name,)]
        for path in paths:
            shown = defaults(cli, *path)
            spec = [*fields(rotsim.OPTIMIZERS[path[1]])] if len(path) > 1 else []
            own = {each.name: each.default for each in [*spec, *signature(function).parameters.values()]}
            both = {key for key in shown if all(isinstance(of.get(key), int | float | tuple) for of in (shown, own))}
            both -= {key for key in both if own[key] == ()}
            assert {key: shown[key] for key in both} == {key: own[key] for key in both}, path
            compared[path] = len(both)
    assert compared["animate",] == 7 and compared["simulate", "adamw"] == 6 and compared["map",] == 1


def test_progress_goes_to_standard_error(handed, tmp_path, monkeypatch):
    """What is printed may be piped into a file."""
    shown = []

    @contextmanager
    def bar(screen, label):
        shown.append((screen.stderr, label))
        yield None

    monkeypatch.setattr("rotsim.show.progress.progress_bar", bar)
    handed("rotsim.simulation.simulate", ["simulate", *ADAMW])
    handed("rotsim.sweeps.sweep", ["sweep", "adamw", "--lr", "1e-2", "--weight-decay", "0.1,0.2"])
    handed("rotsim.show.animation.animate", ["animate", "adamw", "--output", str(tmp_path / "w.gif")])
    assert shown == [(True, "AdamW walk, steps"), (True, "AdamW sweep, cells"), (True, "steps and pictures")]


def test_sweep_hands_on_ranges_and_single_values(handed):
    """Several values are swept, and one is fixed, of the gradient too."""
    ranges = ["--lr", "0.01,0.1", "--weight-decay", "0.2", "--dim", "32"]
    noise = ["--gradient", "autocorrelated", "--with", "correlation=lin:0:0.5:2", "--with", "scale=2"]
    seen = handed("rotsim.sweeps.sweep", ["sweep", "sgdm", *ranges, *noise, "--measure", "leading", "--workers", "1"])
    assert seen.given == (rotsim.SGDM, {"lr": [0.01, 0.1], "correlation": [0.0, 0.5]})
    seen.named.pop("progress")
    assert seen.named == {
        "weight_decay": 0.2, "dim": 32, "scale": 2.0, "gradient": rotsim.Autocorrelated(0.0, scale=2.0),
        "measure": "leading", "store": None, "executor": None, "workers": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "count"), [("adamw", 2), ("adam-l2", 2), ("nadamw", 2), ("lion", 2), ("ademamix", 3)]
)
def test_betas_are_numbers_of_a_sweep(optimizer, count, handed):
    names = [f"beta{place}" for place in range(1, count + 1)]
    given = [word for name in names for word in (f"--{name}", "0.5,0.75")]
    seen = handed("rotsim.sweeps.sweep", ["sweep", optimizer, "--lr", "0.1", "--weight-decay", "0.1", *given])
    assert seen.given[1] == {name: [0.5, 0.75] for name in names}


def test_animate_hands_on_every_option(handed):
    words = "animate adamw sgdm --lr 0.2 --weight-decay 0.3 --set beta2=0.9 --set momentum=0.5 --rotational --dim 8"
    words += " --neurons 5 --steps 40 --frames 4 --fps 3 --initial-norm 2 --schedule cosine --warmup 9 --seed 6"
    words += " --gradient autocorrelated --with correlation=0.5 --output w.gif"
    seen = handed("rotsim.show.animation.animate", words.split())
    specs = [rotsim.AdamW(0.2, 0.3, (0.9, 0.9)), rotsim.SGDM(0.2, 0.3, 0.5)]
    assert seen.given == ([rotsim.Rotational(spec) for spec in specs], "w.gif")
    seen.named.pop("progress")
    factors, steps = seen.named.pop("lr_schedule"), np.arange(1, 41)
    np.testing.assert_allclose(factors(steps), warmup(9, cosine(31))(steps))
    assert seen.named == {
        "dim": 8, "neurons": 5, "rows": None, "steps": 40, "frames": 4, "fps": 3, "initial_norm": 2.0, "seed": 6,
        "gradient": rotsim.Autocorrelated(0.5),
    }  # fmt: skip
    plain = handed("rotsim.show.animation.animate", ["animate", "lion"])
    assert plain.given == ([rotsim.Lion(1e-2, 0.1)], "walk.gif") and plain.named["lr_schedule"] is None


@pytest.mark.parametrize("given", ["64x256", "64X256", "64×256", (64, 256)])
def test_a_shape_is_rows_and_columns(given):
    assert Shape().convert(given, None, None) == (64, 256)
    for wrong in ("64", "64x", "x256", "64x2.5"):
        with pytest.raises(click.BadParameter, match="is not"):
            Shape().convert(wrong, None, None)


def test_simulate_hands_on_every_option(handed, tmp_path):
    path = str(tmp_path / "walk.nc")
    seen = handed(
        "rotsim.simulation.simulate",
        [
            "simulate", *ADAMW, "--betas", "0.8", "0.9", "--eps", "1e-6", "--dim", "32", "--gradient", "student-t",
            "--scale", "2", "--with", "degrees=5", "--neurons", "3", "--steps", "40", "--seed", "7", "--initial-norm",
            "0.5", "--record-every", "20", "--dtype", "float64", "--threads", "1", "--engine", "numpy", "--output",
            path, "--keep-state", "--checkpoint-seconds", "9",
        ],
    )  # fmt: skip
    assert seen.given == (rotsim.AdamW(1e-2, 0.1, betas=(0.8, 0.9), eps=1e-6),)
    seen.named.pop("progress")
    assert seen.named == {
        "dim": 32, "gradient": rotsim.StudentT(degrees=5, scale=2.0), "neurons": 3, "steps": 40, "seed": 7,
        "initial_norm": 0.5, "record_every": 20, "dtype": "float64", "threads": 1, "engine": "numpy", "resume": None,
        "keep_state": True, "rows": None,
        "checkpoint": path, "checkpoint_seconds": 9.0,
    }  # fmt: skip
    plain = handed("rotsim.simulation.simulate", ["simulate", *ADAMW, "--rotational"])
    assert plain.given == (rotsim.Rotational(SPEC),) and plain.named["gradient"] == rotsim.ScaleInvariant()
    assert "checkpoint" not in plain.named and plain.named["keep_state"] is False
    free = ["--gradient", "autocorrelated", "--with", "correlation=0.5", "--with", "scale_invariant=false"]
    seen = handed("rotsim.simulation.simulate", ["simulate", *ADAMW, *free])
    assert seen.named["gradient"] == rotsim.Autocorrelated(0.5, scale_invariant=False)


def test_a_walk_that_nothing_predicts_says_its_last_norm(capsys):
    walk = ["simulate", "sgdm", "--lr", "0.1", "--weight-decay", "0", "--momentum", "0.5", "--dim", "8"]
    assert main([*walk, "--neurons", "3", "--steps", "40", "--record-every", "10", "--threads", "1"]) == 0
    data = rotsim.simulate(rotsim.SGDM(0.1, 0.0, momentum=0.5), dim=8, neurons=3, steps=40, record_every=10, threads=1)
    final = np.sqrt(np.mean(data["norm"].values[:, -1] ** 2))
    printed = capsys.readouterr().out
    assert printed.startswith(f"RMS norm after 40 steps: {final:.6g}. No prediction to compare with: `weight_decay`")


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        (["--steps", "300"], constant()),
        (["--steps", "300", "--warmup", "299"], warmup(299, constant())),
        (["--steps", "300", "--schedule", "linear", "--final", "0.2", "--warmup", "50"], warmup(50, linear(250, 0.2))),
        (["--steps", "300", "--schedule", "cosine", "--final", "0.2", "--warmup", "50"], warmup(50, cosine(250, 0.2))),
        (["--steps", "300", "--schedule", "wsd", "--final", "0.2", "--warmup", "50"], wsd(300, 50, final=0.2)),
    ],
)
@pytest.mark.parametrize("convention", ["decoupled", "corrected", "independent"])
def test_predict_hands_on_its_schedule(handed, options, factors, convention):
    options = [*options, "--dim", "32", "--initial-norm", "0.5", "--scale", "3", "--convention", convention]
    seen = handed("rotsim.theory.prediction.predict", ["predict", *ADAMW, *options])
    names = ("optimizer", "dim", "gradient", "steps", "initial_norm", "lr_schedule", "wd_schedule")
    given = dict(zip(names, seen.given, strict=False)) | seen.named
    assert (given["optimizer"], given["dim"], given["gradient"]) == (SPEC, 32, rotsim.ScaleInvariant(3.0))
    assert (given["steps"], given["initial_norm"], given["record_every"]) == (300, 0.5, 1)
    steps = np.arange(1, 301)
    np.testing.assert_allclose(given["lr_schedule"](steps), factors(steps))
    assert given["wd_schedule"] == convention


@pytest.mark.parametrize(("steps", "every"), [(199, 1), (600, 3), (20_000, 100)])
def test_a_course_has_two_hundred_windows(handed, steps, every):
    seen = handed("rotsim.theory.prediction.predict", ["predict", *ADAMW, "--steps", str(steps)])
    assert seen.named["record_every"] == every


@pytest.mark.parametrize(("steps", "warm", "code"), [("300", "300", 2), ("300", "-1", 2), ("1", "0", 0)])
def test_warm_up_is_shorter_than_the_course(steps, warm, code, capsys):
    assert main(["predict", "sgdm", "--lr", "0.1", "--weight-decay", "0.1", "--steps", steps, "--warmup", warm]) == code
    error = capsys.readouterr().err
    assert (re.search(f"`warmup` must be (>= 0|< 300); got {warm}", error) is not None) == (code == 2)


def test_a_course_without_decay_has_no_equilibrium_to_come_near(capsys):
    course = ["predict", "sgdm", "--lr", "0.1", "--steps", "300", "--dim", "64", "--weight-decay"]
    assert main([*course, "0"]) == 0
    assert "within 5 %" not in capsys.readouterr().out
    assert main([*course, "0.05"]) == 0
    first = rotsim.steps_to_equilibrium(rotsim.SGDM(0.1, 0.05), dim=64, initial_norm=1.0, within=0.05)
    assert f"within 5 % of equilibrium after {first} steps" in " ".join(capsys.readouterr().out.split())


def test_equilibrium_writes_both_forms(tmp_path, capsys):
    path = tmp_path / "eq.json"
    options = ["--dim", "32", "--gradient", "isotropic", "--scale", "2", "--output", str(path)]
    assert main(["equilibrium", *ADAMW, *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"saved {path}"
    content = json.loads(path.read_text())
    content.pop("provenance")
    exact, leading = (rotsim.equilibrium(SPEC, 32, rotsim.Isotropic(2.0), m) for m in ("exact", "leading"))
    assert content == json.loads(
        json.dumps(
            {
                "optimizer": SPEC.to_dict(),
                "dim": 32,
                "gradient": rotsim.Isotropic(2.0).to_dict(),
                "exact": exact.to_dict(),
                "leading": leading.to_dict(),
            }
        )
    )


def test_plan_hands_on_its_targets(handed):
    options = ["--rotation", "0.01", "--norm", "2", "--relaxation-steps", "300", "--lr", "0.1", "--weight-decay", "0.2"]
    seen = handed("rotsim.theory.planning.plan", ["plan", "adam-l2", *options, "--betas", "0.8", "0.9", "--dim", "32"])
    assert seen.given == ("adam_l2",) and seen.named == {
        "rotation": 0.01, "norm": 2.0, "relaxation_steps": 300.0, "lr": 0.1, "weight_decay": 0.2, "betas": (0.8, 0.9),
        "dim": 32, "rows": None, "cautious": False,
    }  # fmt: skip
    seen = handed("rotsim.theory.planning.plan", ["plan", "sgdm", "--momentum", "0.5"])
    assert seen.named["momentum"] == 0.5 and "betas" not in seen.named and seen.named["dim"] == 1024


def test_transfer_hands_on_and_says_both_ends(handed, capsys):
    change = ["--new-momentum", "0.8", "--batch-factor", "4", "--steps-factor", "0.5", "--dim", "64", "--scale", "2"]
    expected = rotsim.transfer(
        SPEC, momentum=0.8, batch_factor=4, steps_factor=0.5, dim=64, gradient=rotsim.ScaleInvariant(2.0)
    )
    assert main(["transfer", *ADAMW, *change]) == 0
    lr, rotation = capsys.readouterr().out.splitlines()[-2:]
    new, before = expected.optimizer, rotsim.equilibrium(SPEC, 64, rotsim.ScaleInvariant(2.0))
    assert lr == (
        f"lr 0.01 → {new.lr:.4g} (x {new.lr / 0.01:.4g}), weight decay 0.1 → {new.weight_decay:.4g} "
        f"(x {new.weight_decay / 0.1:.4g})"
    )
    assert rotation == (
        f"rotation per step {before.rotation:.4g} → {expected.equilibrium.rotation:.4g}, norm {before.norm:.4g} → "
        f"{expected.equilibrium.norm:.4g}"
    )
    seen = handed("rotsim.theory.planning.transfer", ["transfer", *ADAMW, *change])
    assert seen.given == (SPEC,) and seen.named["gradient"] == rotsim.ScaleInvariant(2.0)


@pytest.mark.parametrize("passed", [True, False])
def test_verify_hands_on_and_its_verdict_is_the_exit_code(monkeypatch, passed):
    seen = {}

    def run(**named):
        seen.update(named)
        return passed

    monkeypatch.setattr("rotsim.verify.run", run)
    assert main(["verify", "--seed", "3", "--quick"]) == (0 if passed else 1)
    assert seen == {"quick": True, "output": None, "seed": 3}
    main(["verify", "--output", "somewhere"])
    assert str(seen["output"]) == "somewhere" and seen["quick"] is False and seen["seed"] == 0


# --- traces ----------------------------------------------------------------------------------------


def a_trace(optimizer=SPEC, factor=1.0, radial=0.0, skipped=(), norm=1.0, seed=0):
    """Eight neurons at rest, by construction; `factor` times the predicted rotation."""
    theory, draw, shape = rotsim.equilibrium(SPEC, 64), np.random.default_rng(seed), (8, 20)
    noise = 1 + 0.01 * draw.standard_normal(shape)
    variables = {
        "norm": norm * theory.norm * np.ones(shape),
        "rotation": factor * theory.rotation * noise,
        "update_rms": factor * norm * theory.update_rms * noise,
        "gradient_norm": np.ones(shape) / theory.norm,
        "gradient_scale": np.ones(shape),
        "gradient_cosine": np.full(shape, 1e-6),
        "gradient_burst": np.ones(shape),
        "active": np.ones(shape),
        "radial": np.full(shape, radial * 0.1),
    }
    return dataset.build(
        "trace",
        step=400 * np.arange(1, 21),
        variables=variables,
        optimizer=optimizer,
        layer=np.full(8, "body.weight"),
        fan_in=64,
        spec={"skipped": dict(skipped), "changed": {}},
    ).assign_coords(lr=("neuron", np.full(8, 1e-2)), weight_decay=("neuron", np.full(8, 0.1)))


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({}, 0, "agrees in 1 of them"),
        ({"factor": 2.0}, 1, "agrees in 0 of them"),
        ({"factor": 2.0, "radial": 3.0}, 0, "applies to none of 1 layers"),
    ],
)
def test_the_exit_code_of_a_report_asks_only_what_is_claimed(tmp_path, capsys, change, code, words):
    path = str(dataset.save(a_trace(skipped={"head.bias": "1-D: not a weight"}, **change), tmp_path / "trace.nc"))
    assert main(["trace", "report", path]) == code
    printed = " ".join(capsys.readouterr().out.split())
    assert words in printed and "Not recorded: " in printed and "head.bias" in printed
    assert ("λ_eff = λ + P" in printed) == ("none of" in words)  # the reason of a layer that is not claimed
    assert main(["compare", path]) == code
    assert words in " ".join(capsys.readouterr().out.split())
    assert main(["compare", path, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] == ("agrees in 1" in words) and "spec" in found
    folder = tmp_path / "out"
    assert main(["trace", "report", path, "--json", "--output", str(folder)]) == code
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "report.json").read_text())


def test_a_layer_without_decay_has_a_course_and_no_claim(tmp_path, capsys):
    """Its norm grows as noise lets it; where the optimizer decays, the same trace is claimed."""
    claims = {}
    for decay in (0.0, 0.1):
        trace = a_trace().assign_coords(weight_decay=("neuron", np.full(8, decay)))
        assert main(["trace", "report", str(dataset.save(trace, tmp_path / f"{decay}.nc"))]) == 0
        printed = capsys.readouterr().out
        claims[decay] = re.search(r"claimed .*?body +(yes|no) ", printed, re.DOTALL)[1], "no decay" in printed
        assert "Not recorded" not in printed
    assert claims == {0.0: ("no", True), 0.1: ("yes", False)}


def test_two_runs_are_named_by_their_optimizers_or_by_letters(tmp_path, capsys):
    one, two, lion = (str(tmp_path / f"{name}.nc") for name in ("one", "two", "lion"))
    dataset.save(a_trace(), one)
    dataset.save(a_trace(factor=3.0, seed=1), two)
    dataset.save(a_trace(rotsim.Lion(1e-2, 0.1)), lion)
    assert main(["trace", "compare", one, two]) == 0
    printed = capsys.readouterr().out
    assert "AdamW A" in printed and "AdamW B" in printed and "3.0" in printed
    assert main(["trace", "compare", one, lion]) == 0
    printed = capsys.readouterr().out
    assert "AdamW" in printed and "Lion" in printed and "AdamW A" not in printed


def test_an_unknown_derivation_is_said(capsys):
    assert main(["derive", "sgdm", "nothing"]) == 2
    assert "derivation 'nothing' is unknown; choose from adamw" in capsys.readouterr().err


def test_what_click_refuses_is_one_line_too(capsys):
    assert main(["equilibrium", *ADAMW, "--dim", "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rotsim: ") and "'x' is not a whole number" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ("0.1:10:3", float, [0.1, 1.0, 10.0]),
        ("0.5:2:3", float, [0.5, 1.0, 2.0]),
        ("lin:0:1:3", float, [0.0, 0.5, 1.0]),
        ("lin:-1:1:2", float, [-1.0, 1.0]),
        ("1:8:4", int, [1, 2, 4, 8]),
        ("1:2:9", int, [1, 2]),
        ("3:5:1", float, [3.0]),
        ("0.1,0.3", float, [0.1, 0.3]),
        ("8,1e3", int, [8, 1000]),
    ],
)
def test_a_range_on_the_command_line(given, kind, expected):
    assert sweeping.values("lr", given, kind) == pytest.approx(expected)


def test_a_range_of_no_numbers_or_too_many():
    assert len(sweeping.values("lr", f"1:2:{sweeping.MOST_POINTS}", float)) == sweeping.MOST_POINTS
    assert len(sweeping.values("lr", "1:2", float)) == sweeping.MAP_POINTS
    for given in (f"1:2:{sweeping.MOST_POINTS + 1}", "1:2:0", "1:inf:3", "0:1:3", "-1:1:3", "1:2:3:4", "a", "8.5:x"):
        with pytest.raises(InvalidInput, match="`--weight-decay` takes"):
            sweeping.values("weight_decay", given, float)


def test_names_on_the_command_line_may_have_hyphens(capsys):
    given = ["momentum-decay=0.1", "betas=0.9, 0.99", "kind = a"]
    assert converting.hyperparameters(given) == {"momentum_decay": 0.1, "betas": (0.9, 0.99), "kind": "a"}
    words = ["convert", "adamw", "--lr", "1e-3", "--weight-decay", "0.1", "--to", "sgdm"]
    assert main([*words, "--keep", "rotation, weight-decay"]) == 0
    assert main(["equilibrium", "adamw", "--learning_rate", "3"]) == 2
    assert "Did you mean --lr?" in capsys.readouterr().err
