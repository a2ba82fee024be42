"""What a person reads: in ASCII, in forty columns, through a pipe that closes; and the hint after a wrong option."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
import xarray as xr

import derivations
import rotsim
from rotsim.cli import main
from rotsim.measure.shipped import shipped_traces
from rotsim.show.streams import prepare, readable
from rotsim.show.terminal import console, plain_table
from rotsim.show.theory_tables import settled_note

ADAMW = ["adamw", "--lr", "1e-2", "--weight-decay", "0.1"]
SGDM = ["sgdm", "--lr", "0.1", "--weight-decay", "0.1"]
WALK = ["simulate", *SGDM, "--dim", "8", "--neurons", "2", "--steps", "200", "--engine", "numpy"]
TRACE = str(shipped_traces()["digits_lion"])


def terminal(monkeypatch, encoding):
    """Standard output and error of a terminal of this encoding; what it got is in their buffers."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    return streams


def printed(streams):
    for stream in streams:
        stream.flush()
    return "".join(stream.buffer.getvalue().decode(stream.encoding) for stream in streams)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("norm ‖w‖", "norm |w|"),
        ("5.038 ±0.005", "5.038 +-0.005"),
        ("lr 0.1 → 0.2 (x 2)", "lr 0.1 -> 0.2 (x 2)"),
        ("λ_eff = λ + P, β1, η, ε, Θ", "lambda_eff = lambda + P, beta1, eta, epsilon, Theta"),
        ("‖w‖², 10⁻³, β₁", "|w|^2, 10^-3, beta_1"),
        ("ĝ and g̃", "g and g"),
        ("─│┼", "-|+"),
        ("日", "?"),
        ("a\udcffb", "a?b"),
    ],
)
def test_what_ascii_lacks_is_spelled(text, spelled):
    assert readable(text, "ascii") == spelled
    assert readable(spelled, "utf-8") == spelled


def test_what_an_encoding_has_stays():
    assert readable("‖w‖² ±1 λ", "latin-1") == "|w|² ±1 lambda"
    assert readable("‖w‖² ±1 λ", "utf-8") == "‖w‖² ±1 λ"


@pytest.mark.few(7)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["simulate", "lion", "--help"],
        ["equilibrium", *ADAMW],
        ["transfer", *ADAMW, "--batch-factor", "4"],
        ["trace", "report", TRACE],
        ["derive", "sgdm"],
        WALK,
    ],
    ids=lambda command: command[0],
)
def test_every_command_prints_on_every_terminal(command, encoding, monkeypatch):
    streams = terminal(monkeypatch, encoding)
    main(command)
    text = printed(streams)
    assert len(text) > 200 and "Traceback" not in text and "?" not in re.sub(r"\?\s", "", text)
    assert encoding != "ascii" or text.isascii()
    assert encoding != "utf-8" or "--help" in command or not text.isascii()


def test_columns_stay_straight_where_symbols_are_spelled(monkeypatch):
    streams = terminal(monkeypatch, "ascii")
    assert main(["equilibrium", *ADAMW]) == 0
    rows = [line.rstrip() for line in printed(streams).splitlines() if line.startswith(("|", "+-"))]
    assert len(rows) == 8 and len({len(row) for row in rows}) == 1


def test_a_handler_that_was_asked_for_is_kept(monkeypatch):
    streams = terminal(monkeypatch, "ascii")
    streams[0].reconfigure(errors="namereplace")
    prepare()
    assert streams[0].errors == "namereplace" and streams[1].errors == "rotsim.spelled"


def test_equations_in_ascii_are_drawn_so():
    text = derivations.render("sgdm", "ascii")
    equations = [line for line in text.splitlines() if line.startswith("    ") and "=" in line]
    assert any("alpha*m[t - 1] + lambda*w[t - 1] + g[t]" in line for line in equations)
    drawn = [line for line in text.split("1. Random walk")[1].splitlines() if line.startswith("    ")]
    assert drawn and all(len(readable(line, "ascii")) == len(line) for line in drawn)  # spelling moves nothing


@pytest.fixture(scope="module")
def wide_report():
    """The report of a trace on a wide terminal."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setenv("COLUMNS", "200")
        main(["trace", "report", TRACE])
    return printed.getvalue()


@pytest.mark.few(2)
@pytest.mark.parametrize("columns", ["40", "1", "0", "nonsense"])
def test_a_narrow_terminal_cuts_no_digit(columns, monkeypatch, capsys, wide_report):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["equilibrium", *ADAMW]) == 0
    text = capsys.readouterr().out
    exact = rotsim.equilibrium(rotsim.AdamW(1e-2, 0.1), 1024)
    assert f"{exact.rotation:.6g}" in text and f"{exact.norm:.6g}" in text and f"{exact.update_rms:.6g}" in text
    if columns == "40":
        assert max(map(len, text.splitlines())) <= 40
    if columns in ("40", "1"):
        main(["trace", "report", TRACE])
        numbers = {number for number in re.findall(r"\d+\.\d+", wide_report) if number not in ("0.0002", "0.99")}
        assert len(numbers) > 20 and numbers <= set(re.findall(r"\d+\.\d+", capsys.readouterr().out))


def test_a_table_that_fits_stays_a_table():
    table = plain_table("walk[1].nc: [/] of it", "name", "number", numbers=("number",))
    table.add_row("one", "1.25")
    for width, lines in ((40, 1), (21, 1), (20, 1)):
        screen = console(file=io.StringIO(), width=width)
        screen.print(table)
        text = screen.file.getvalue()
        assert "walk[1].nc: [/] of" in text.replace("\n", " ")
        assert sum("one" in line and "1.25" in line for line in text.splitlines()) == lines
    table = plain_table("walk", "name", "number", "another number", numbers=("number", "another number"))
    table.add_row("two", "2.5", "123456789")
    screen = console(file=io.StringIO(), width=25)
    screen.print(table)
    rows = [line.rstrip() for line in screen.file.getvalue().splitlines()]
    assert rows == ["walk", "", "two", "  number: 2.5", "  another number:", "123456789"]


def test_a_number_that_heads_a_record_is_named(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["sweep", "sgdm", "--lr", "0.1", "--weight-decay", "0.1,0.2", "--dim", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "weight_decay: 0.1" in lines and "weight_decay: 0.2" in lines


def test_one_cell_is_no_cells(capsys):
    command = ["sweep", "sgdm", "--lr", "0.1", "--weight-decay", "0.1"]
    assert main(command) == 0 and main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "equilibrium, 1 cell " in printed and "1 cell, 0 of them finished" in printed


def test_a_legend_has_the_verdicts_of_its_table_alone(capsys, tmp_path):
    path = str(tmp_path / "short.nc")
    assert main(["simulate", *SGDM, "--dim", "8", "--neurons", "2", "--steps", "100", "--output", path]) == 0
    assert main(["compare", path]) == 1
    printed = capsys.readouterr().out
    assert printed.count("only 1 record window, at least 8") == printed.count("NOT EQUILIBRATED: the walk") == 2
    assert "PASS" not in printed and "FAIL" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", *ADAMW, "--wd", "3"], "'--wd'. Did you mean --weight-decay? (see rotsim simulate adamw --help)"),
        (["equilibrium", "adamw", "--learning-rate=3"], "No such option '--learning-rate'. Did you mean --lr?"),
        (["equilibrium", "lion", "--beta1", "3"], "Did you mean --betas, which takes 2 values? (see rotsim equil"),
        (["equilibrium", "adamw", "--beta2", "3"], "Did you mean --betas, which takes 2 values?"),
        (["equilibrium", "sgdm", "--beta1", "3"], "Did you mean --momentum?"),
        (["equilibrium", "sgdm", "--betas", "3", "4"], "Did you mean --momentum?"),
        (["equilibrium", "adamw", "-lr", "3"], "No such option '-lr'. Did you mean --lr?"),
        (["predict", "adamw", "--weight_decay", "3"], "Did you mean --weight-decay?"),
        (["predict", "adamw", "--nonsense"], "No such option '--nonsense' (see rotsim predict adamw --help)"),
        (["simulate", "--lr", "3"], "Name an optimizer first, as in rotsim simulate adamw --lr"),
        (["simulate", "adamw", "--lr", "3"], "Missing option '--weight-decay' (see rotsim simulate adamw --help)"),
        (["trace", "report"], "Missing argument 'FILE' (see rotsim trace report --help)"),
        (["simulat"], "Did you mean 'simulate'? (see rotsim --help)"),
        (["eq", *ADAMW], "Did you mean 'equilibrium'? (see rotsim --help)"),
        (["trace", "walk.nc"], "No such command 'walk.nc'; choose from compare, import, join, report"),
        (["verify", "quick"], "Did you mean --quick? (see rotsim verify --help)"),
        (["equilibrium", *ADAMW, "--betas", "0.9"], "one after the other: --betas 0.9 0.999 (see rotsim equil"),
        (["equilibrium", *ADAMW, "--seed", "1"], "No such option '--seed' (see rotsim equilibrium adamw --help)"),
        (["equilibrium", *ADAMW, "--ratio", "0.1"], "Did you mean --with ratio=VALUE?"),
        (["equilibrium", "adamw", "lr=1e-3"], "Missing option '--lr'. Did you mean --lr 1e-3? (see rotsim equil"),
        (["equilibrium", "--optimizer", "lion"], "as in rotsim equilibrium adamw (see rotsim equilibrium --help)"),
        (["equilibrium", *ADAMW, "--output"], "'--output' requires an argument (see rotsim equilibrium adamw --help)"),
        (["equilibrium", *ADAMW, "--dim", "2.5"], "'2.5' is not a whole number"),
        (["equilibrium", *ADAMW, "--dim", "9" * 400], "`dim` must be < 2**63"),
        (["equilibrium", *ADAMW, "--weight-decay", "-1"], "got -1.0 (see rotsim equilibrium adamw --help)"),
        (["equilibrium", *ADAMW, "--weight-decay", "10%"], "'10%' is not a number (see"),
        (["predict", *ADAMW, "--steps", "0"], "`steps` must be >= 1; got 0 (see rotsim predict adamw --help)"),
        (["predict", *ADAMW, "--schedule", "cos"], "Did you mean 'cosine'?"),
        (["predict", *ADAMW, "--plot", "x.png"], "Did you mean --figure?"),
        (["predict", *ADAMW, "--final", "0.1"], "`--final` needs --schedule linear, cosine or wsd"),
        (["plan", "adamw", "--angle", "0.01"], "Did you mean --rotation? (see rotsim plan --help)"),
        (["plan", "adamw", "--rotation", "5", "--norm", "1"], "Ask for a smaller rotation (see rotsim plan --help)"),
        (["transfer", *ADAMW, "--batch-factor", "0"], "(see rotsim transfer adamw --help)"),
        (["transfer", *ADAMW, "--batch-size", "4"], "Did you mean --batch-factor?"),
        (["simulate", *ADAMW, "--dtype", "float16"], "Did you mean 'float64'? (see rotsim simulate adamw --help)"),
        (["derive", "adam"], "Did you mean 'adamw' or 'adam_l2'? (see rotsim derive --help)"),
        (["equilibrium", "AdamW"], "Did you mean 'adamw'?"),
        (["equilibrium", "adam"], "Did you mean 'adamw' or 'adam_l2'?"),
        (["plan", "sgd", "--norm", "1"], "Did you mean 'sgdm'?"),
        (["predict", *SGDM, "--figure", "x.xyz"], "must end in one of .png, .pdf, .svg; got 'x.xyz'"),
        (["predict", *SGDM, "--figure", ""], "must not be empty"),
        (["predict", *SGDM, "--output", ""], "must not be empty"),
        (["trace", "report", TRACE, "--output", ""], "must not be empty"),
        (["verify", "--output", ""], "must not be empty"),
        (["simulate", *SGDM, "--resume", ""], "must not be empty"),
    ],
)  # fmt: skip
def test_a_wrong_option_gets_its_hint(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("rotsim.verify._derivations", None)  # nothing is computed
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert message in error and error.count("\n") == 1 and error.startswith("rotsim: ") and not out


def test_a_group_alone_shows_its_help(capsys):
    assert main([]) == 2
    assert "rotsim verify --quick" in capsys.readouterr().err


@pytest.mark.few(1)
@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_figure_is_what_its_name_says(suffix, tmp_path):
    path = tmp_path / f"course.{suffix}"
    assert main(["predict", *SGDM, "--steps", "200", "--figure", str(path)]) == 0
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)


class Closed(io.RawIOBase):
    """The writing end of a pipe that nobody reads any more, or a disk that is full."""

    def __init__(self, error):
        self.error = error

    def writable(self):
        return True

    def write(self, data):
        raise self.error


@pytest.mark.parametrize("command", [["equilibrium", *ADAMW], ["derive", "sgdm"], ["--help"], ["compare", "no.nc"]])
def test_a_reader_that_leaves_ends_a_command_quietly(command, monkeypatch):
    _, error = terminal(monkeypatch, "utf-8")
    closed = io.TextIOWrapper(io.BufferedWriter(Closed(BrokenPipeError()), 64), "utf-8")
    monkeypatch.setattr(sys, "stdout", closed)
    assert main(command) == (2 if command[0] == "compare" else 141)
    assert printed([error]).count("\n") == (command[0] == "compare")


def test_a_full_disk_behind_standard_output_is_one_line(monkeypatch):
    _, error = terminal(monkeypatch, "utf-8")
    full = io.TextIOWrapper(io.BufferedWriter(Closed(OSError(28, "No space left on device")), 64), "utf-8")
    monkeypatch.setattr(sys, "stdout", full)
    assert main(["equilibrium", *ADAMW]) == 2
    assert "No space left on device" in printed([error]) and printed([error]).count("\n") == 1


@pytest.mark.few(1)
@pytest.mark.skipif(sys.platform == "win32", reason="a shell that closes")
@pytest.mark.parametrize("closed", [">&-", *(pytest.param(c, marks=pytest.mark.slow) for c in ("2>&-", ">&- 2>&-"))])
def test_an_output_that_is_closed_takes_nothing_from_the_work(closed, tmp_path):
    command = f"{sys.executable} -m rotsim predict {' '.join(SGDM)} --steps 20 --output {tmp_path}/x.nc {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and not done.stderr
    assert rotsim.load(tmp_path / "x.nc").sizes["step"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="a shell with pipes")
def test_a_pipe_in_a_shell():
    """In a process of its own, whose last words at the interpreter's end are seen too."""
    command = f"{sys.executable} -m rotsim derive sgdm | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.slow
def test_numba_without_its_compiler_walks_slowly():
    sizes = ["--dim", "8", "--neurons", "2", "--threads", "2", "--steps", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "rotsim", "simulate", *ADAMW, *sizes],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    assert done.returncode == 0 and "rotation" in done.stdout and not done.stderr


def test_json_is_ascii_on_every_terminal(monkeypatch):
    streams = terminal(monkeypatch, "ascii")
    main(["trace", "report", TRACE, "--json"])
    assert json.loads(printed(streams))["layers"]


def test_names_in_a_file_do_not_command_the_terminal(tmp_path, capsys):
    trace = rotsim.load(TRACE)
    name = "\x1b[2J\x9b1m\u202eevil\a"
    layers = np.where(trace["layer"].values == trace["layer"].values[0], name, trace["layer"].values)
    path = rotsim.save(trace.assign_coords(layer=("neuron", layers)), tmp_path / "x.nc")
    main(["trace", "report", str(path)])
    printed = capsys.readouterr().out
    assert not re.search("[\x1b\x9b\u202e\x07]", printed)
    assert "evil" in printed and r"\x1b" in printed


def test_numbers_and_names_as_people_write_them(capsys):
    printed = []
    for dim, gradient in (("1024", "scale-invariant"), ("1.024e3", "Scale_Invariant")):
        assert main(["equilibrium", *ADAMW, "--dim", dim, "--gradient", gradient]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_a_schedule_is_said_to_rest_where_norm_and_rotation_do():
    """Steps are those of the windows, and both quantities must be near; what is NaN, at a rate of 0, is not."""
    settled = xr.Dataset({name: ("step", np.ones(8)) for name in ("norm", "rotation")})

    def said(norm, rotation=None):
        values = {"norm": norm, "rotation": np.ones(8) if rotation is None else rotation}
        course = {name: (("neuron", "step"), np.asarray(each)[None]) for name, each in values.items()}
        return settled_note(xr.Dataset(course, coords={"step": 10 * np.arange(1, 9)}), settled, 0.05)

    near = [1.2, 1.04, 0.96, 0.9, 1, 1, 1, np.nan]
    assert said(near).endswith("within 5 % of the equilibrium in force in steps 11 to 30, 41 to 70.")
    assert said(near, [1, 1, 1, 1, 2, 2, 2, 1]).endswith("in steps 11 to 30.")
    assert said([2.0] * 8).endswith("in no step.")
    assert said([1, 2] * 4).endswith("in steps 1 to 10, 21 to 30, 41 to 50, later ones.")
