"""The command line as a person uses it: output, files, exit codes, one clear line for bad input."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from rich.console import Console

import rotsim
from rotsim.cli import cli, main
from rotsim.show.progress import progress_bar
from rotsim.theory.schedules import cosine, warmup
from tests.conftest import chunks_of, press_ctrl_c

ADAMW = ["adamw", "--lr", "1e-2", "--weight-decay", "0.1"]
SGDM = ["sgdm", "--lr", "0.1", "--weight-decay", "0.05"]
SMALL = ["--dim", "64", "--neurons", "32", "--steps", "4000"]


@pytest.mark.parametrize("name", [*rotsim.OPTIMIZERS, "adam-l2"])
def test_equilibrium(name, capsys):
    assert main(["equilibrium", name, "--lr", "1e-3", "--weight-decay", "0.1", "--dim", "1024"]) == 0
    out = capsys.readouterr().out
    assert "rotation" in out and "leading order" in out and "relaxation" in out


def test_equilibrium_output(tmp_path, capsys):
    path = tmp_path / "eq.json"
    assert main(["equilibrium", *ADAMW, "--betas", "0.8", "0.99", "--output", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["optimizer"]["betas"] == [0.8, 0.99]
    assert content["exact"]["rotation"] == pytest.approx(
        rotsim.equilibrium(rotsim.AdamW(1e-2, 0.1, (0.8, 0.99)), 1024, rotsim.ScaleInvariant()).rotation
    )


def test_predict(tmp_path, capsys):
    course, figure = tmp_path / "course.nc", tmp_path / "course.png"
    schedule = ["--steps", "2000", "--schedule", "cosine", "--warmup", "200", "--final", "0.1"]
    schedule += ["--convention", "corrected"]
    assert main(["predict", *ADAMW, *schedule, "--output", str(course), "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    assert "within 5 % of" in out and "/ settled" in out and figure.stat().st_size > 10_000
    factors = warmup(200, cosine(1800, 0.1))
    expected = rotsim.predict(
        rotsim.AdamW(1e-2, 0.1), 1024, steps=2000, lr_schedule=factors, wd_schedule=factors, record_every=10
    )
    assert rotsim.load(course)["norm"].values == pytest.approx(expected["norm"].values)


@pytest.mark.parametrize("name", ["linear", "wsd", "constant"])
def test_a_course_settles_where_the_rates_in_force_say(name, capsys):
    """The last column of a slow schedule is 1: the course is in the equilibrium of its last learning rate."""
    rates = ["--lr", "0.1", "--weight-decay", "0.1", "--steps", "20000", "--schedule", name]
    rates += [] if name == "constant" else ["--final", "0.9"]
    assert main(["predict", "sgdm", *rates]) == 0
    last = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" 20000")][-1]
    assert float(last[1]) == pytest.approx(0.1 if name == "constant" else 0.09)
    assert last[3] == last[5] == "1.00"


def test_plan(capsys):
    assert main(["plan", "adam-l2", "--rotation", "0.01", "--norm", "1", "--betas", "0.9", "0.99", "--dim", "256"]) == 0
    out = capsys.readouterr().out
    assert "Adam" in out and re.search(r"rotation, rad per step +0\.01 ", out)


def test_transfer(capsys):
    assert main(["transfer", "adamw", "--lr", "1e-3", "--weight-decay", "0.1", "--batch-factor", "4"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    expected = rotsim.transfer(rotsim.AdamW(1e-3, 0.1), batch_factor=4).optimizer
    assert f"lr 0.001 → {expected.lr:.4g} (x 2.003)" in out
    assert f"weight decay 0.1 → {expected.weight_decay:.4g}" in out and "norm 2.261 → 2.261" in out


@pytest.mark.usefixtures("seldom_wrong")
def test_simulate_save_compare_resume(tmp_path, capsys):
    first, whole, resumed = (str(tmp_path / name) for name in ("first.nc", "whole.nc", "resumed.nc"))
    assert main(["simulate", *SGDM, *SMALL, "--output", whole, "--keep-state"]) == 0
    assert "PASS" in capsys.readouterr().out
    assert main(["simulate", *SGDM, *SMALL[:-1], "2000", "--output", first, "--keep-state"]) == 0
    assert main(["simulate", *SGDM, *SMALL, "--output", resumed, "--keep-state", "--resume", first]) == 0
    assert rotsim.load(whole).drop_attrs().identical(rotsim.load(resumed).drop_attrs())
    assert main(["compare", whole]) == 0
    assert "within what is allowed and the noise" in capsys.readouterr().out
    capsys.readouterr()
    assert main(["compare", whole, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_compare_exit_code_1_when_not_equilibrated(tmp_path, capsys):
    path = str(tmp_path / "short.nc")
    slow = ["adamw", "--lr", "1e-3", "--weight-decay", "0.01"]
    assert main(["simulate", *slow, *SMALL, "--initial-norm", "0.1", "--output", path]) == 0
    assert main(["compare", path]) == 1
    assert "steps needed" in capsys.readouterr().out


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    chunks_of(monkeypatch, 500)
    path = str(tmp_path / "walk with space.nc")
    command = ["simulate", *SGDM, *SMALL, "--output", path]

    @contextmanager
    def interrupting(console, label):
        yield lambda done, total: press_ctrl_c() if done == 1500 else None

    with monkeypatch.context() as patch:
        patch.setattr("rotsim.show.progress.progress_bar", interrupting)
        assert main(command) == 130
        *_, first, advice = capsys.readouterr().err.splitlines()
        assert "interrupted after 1500 steps; saved" in first
        assert main(["simulate", *SGDM, *SMALL]) == 130
        assert "nothing was written" in capsys.readouterr().err
    assert rotsim.load(path).step[-1] == 1500
    assert main(shlex.split(advice)[1:]) == 0
    whole = str(tmp_path / "whole.nc")
    assert main([*command[:-1], whole]) == 0
    assert rotsim.load(whole).drop_attrs().identical(rotsim.load(path).drop_attrs())


def test_progress_shows_rate_and_time_left():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=120)
    with progress_bar(console, "walk, steps") as progress:
        for done in (1000, 2000, 3000):
            progress(done, 4000)
            time.sleep(0.15)  # the bar redraws ten times a second
    assert re.search(r"walk, steps.*3000/4000.* [\d,]+/s .*left.* \d:\d\d:\d\d", screen.getvalue())


def test_simulate_without_decay(capsys):
    assert main(["simulate", "lion", "--lr", "1e-3", "--weight-decay", "0", *SMALL]) == 0
    assert "`weight_decay` must be > 0" in capsys.readouterr().out


def test_simulate_where_nothing_is_predicted(capsys, tmp_path):
    path = str(tmp_path / "two.nc")
    assert main(["simulate", *SGDM, "--gradient", "isotropic", "--dim", "2", "--steps", "500", "--output", path]) == 0
    assert "No prediction to compare with" in capsys.readouterr().out
    assert rotsim.load(path).sizes["step"] == 5


def test_help_teaches(capsys):
    assert main(["--help"]) == 0
    assert "rotsim verify --quick" in capsys.readouterr().out
    assert main(["simulate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("adamw", "lion", "Example: rotsim simulate"))
    assert main(["equilibrium", "lion", "--help"]) == 0
    assert "--weight-decay" in capsys.readouterr().out


def help_examples(command=cli):
    """The commands that help texts show, those of the subcommands too."""
    text = command.help or ""
    shown = [" ".join(found.split()) for found in re.findall(r"Example: (rotsim .*?)(?:\n\n|\Z)", text, re.DOTALL)]
    start = re.findall(r"^ *(rotsim .*)", text.partition("Start with:")[2], re.MULTILINE)
    below = getattr(command, "commands", {}).values()
    return [*start, *shown, *(line for each in below for line in help_examples(each))]


EXAMPLES = list(dict.fromkeys(help_examples()))
OF_YOUR_OWN = ("compare walk.nc", "trace.nc", "log.csv", "FOLDER", "runs/gpt")  # what examples take and do not make
LONG = ("animate", "explore", "simulate adamw")


def test_help_texts_show_examples():
    assert len(EXAMPLES) > 20 and {line.split()[1] for line in EXAMPLES} == {*cli.commands}


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_of_a_help_text_can_be_read(line, monkeypatch):
    monkeypatch.setattr("click.Command.invoke", lambda *_: None)  # of commands that are no group: options are parsed
    assert main(shlex.split(line)[1:]) == 0


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=[pytest.mark.slow] * any(name in line for name in LONG))
        for line in EXAMPLES
        if not any(name in line for name in (*OF_YOUR_OWN, "verify"))  # tests/test_verify.py runs that
    ],
)
def test_an_example_of_a_help_text_runs(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda _: None)
    (tmp_path / "lecture").mkdir()
    assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_derive(style, capsys):
    assert main(["derive", "sgdm", "--style", style]) == 0
    assert len(capsys.readouterr().out) > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["equilibrium", "adamw", "--lr", "1", "--weight-decay", "1"], "`lr * weight_decay` must be < 1"),
        (["equilibrium", *ADAMW, "--betas", "0.9", "1.0"], "`betas[1]` must be in [0, 1); got 1.0"),
        (["equilibrium", *ADAMW, "--dim", "1"], "`dim` must be >= 2; got 1"),
        (["simulate", *ADAMW, "--dim", "1"], "`dim` must be >= 2; got 1"),
        (["equilibrium", "adamw", "--lr", "nan", "--weight-decay", "0.1"], "`lr` must be finite and > 0; got nan"),
        (["equilibrium", "adamw", "--lr", "x", "--weight-decay", "0.1"], "'x' is not a number"),
        (["equilibrium", "adamw", "--lr", "1e-3"], "Missing option '--weight-decay'"),
        (["equilibrium", "adamw", "--lr", "1e-3", "--weight-decay", "0"], "`weight_decay` must be > 0"),
        (["equilibrium", "rmsprop", "--lr", "1e-3"], "optimizer 'rmsprop' is unknown; choose from adamw"),
        (["equilibrium", *ADAMW, "--output", "/no/such/folder/x.json"], "does not exist"),
        (["simulate", *ADAMW, "--scale", "-1"], "`scale` must be finite and > 0"),
        (
            ["simulate", *ADAMW, "--with", "scale"],
            "`--with` takes NAME=VALUE with a number, true or false, as in --with correlation=0.5; got",
        ),
        (["simulate", *ADAMW, "--with", "name=signal"], "got 'name=signal'"),
        (["simulate", *ADAMW, "--with", "scal=3"], "gradient 'scale_invariant' takes scale; got scal"),
        (["simulate", *ADAMW, "--gradient", "signal"], "gradient 'signal' needs a value for ratio"),
        (["simulate", *ADAMW, "--keep-state"], "needs --output"),
        (["simulate", *ADAMW, "--checkpoint-seconds", "5"], "needs --output"),
        (["simulate", *ADAMW, "--output", "/proc/x.nc"], "not writable"),
        (["compare", "/no/such/file.nc"], "no dataset at"),
        (["derive", "rmsprop"], "derivation 'rmsprop' is unknown"),
        (["verify", "--seed", "-1"], "`seed` must be >= 0"),
        (["predict", *ADAMW, "--warmup", "20000"], "`warmup` must be < 20000; got 20000"),
        (["predict", *ADAMW, "--figure", "/no/such/folder/x.png"], "create it or name a file in another folder"),
        (["predict", *ADAMW, "--output", "x.csv"], "output 'x.csv' would hold NetCDF; give it a name that ends in .nc"),
        (["simulate", *ADAMW, "--output", "x.json"], "output 'x.json' would hold NetCDF"),
        (["sweep", *ADAMW, "--output", "x.zarr"], "output 'x.zarr' would hold NetCDF"),
        (
            ["equilibrium", *ADAMW, "--output", "x.nc"],
            "output 'x.nc' would hold JSON; give it a name that ends in .json",
        ),
        (["convert", *ADAMW, "--to", "lion", "--output", "x.csv"], "output 'x.csv' would hold JSON"),
        (["transfer", *ADAMW, "--new-momentum", "1"], "`momentum` must be in [0, 1); got 1.0"),
        (["plan", "adamw", "--rotation", "0.01"], "1 targets (rotation) cannot determine 2 unknowns"),
        (["plan", "sgdm", "--rotation", "0.01", "--norm", "1", "--betas", "0.9", "0.99"], "no hyperparameter 'betas'"),
        (["transfer", *ADAMW, "--batch-factor", "0"], "`batch_factor` must be finite and > 0; got 0.0"),
        (["transfer", *ADAMW, "--rotational"], "a rotational variant keeps any norm"),
        (["measure"], "No such command 'measure'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 and error.startswith("rotsim: ")


def test_bad_input_writes_nothing(tmp_path, capsys):
    bad = tmp_path / "bad.nc"
    bad.write_bytes(b"junk")
    assert main(["compare", str(bad)]) == 2
    assert "not a readable NetCDF-4 file" in capsys.readouterr().err
    out = tmp_path / "out.nc"
    assert main(["simulate", *ADAMW, *SMALL, "--resume", str(bad), "--output", str(out)]) == 2
    assert main(["simulate", *ADAMW, *SMALL, "--initial-norm", "0", "--output", str(out)]) == 2
    assert os.listdir(tmp_path) == ["bad.nc"]


def test_as_a_process():
    """The installed entry point: exit codes reach the shell, no traceback."""
    command = [sys.executable, "-m", "rotsim", "equilibrium", "adamw", "--lr", "-1", "--weight-decay", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "rotsim: `lr` must be finite and > 0; got -1.0 (see rotsim equilibrium adamw --help)\n"


def test_import_is_light():
    """`import rotsim` loads none of the heavy packages."""
    heavy = ("numba", "xarray", "sympy", "matplotlib", "torch")
    code = f"import sys, rotsim; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("seldom_wrong")
def test_gradient_models_and_rotational_variants_are_reachable(capsys):
    walk = ["simulate", "sgdm", "--lr", "0.1", "--weight-decay", "0.1", "--steps", "3000", "--dim", "64"]
    white = ["--gradient", "autocorrelated", "--with", "correlation=0.0", "--with", "scale_invariant=false"]
    assert main([*walk, *white]) == 0 and "norm" in capsys.readouterr().out
    assert main([*walk, "--rotational"]) == 0
    printed = capsys.readouterr().out
    assert "PASS" in printed and "rotation" in printed
