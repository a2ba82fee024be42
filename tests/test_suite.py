"""The frozen corpus, the two GPTs, and the suite command: resume, skip, report."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from experiments.networks import record, suite  # noqa: E402
from experiments.networks.__main__ import main  # noqa: E402
from experiments.networks.corpus import load_corpus  # noqa: E402
from experiments.networks.data import Images  # noqa: E402
from experiments.networks.gpt import GPT, GPTSize  # noqa: E402
from experiments.networks.train_text import TextRun  # noqa: E402
from rotsim.dataset import load  # noqa: E402
from rotsim.diagnosis import diagnose  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402

# Rotation over its prediction, medians over the neurons of a hidden layer, seeds 0, 1 and 2 of `--suite ci`: SGDM
# 0.984-1.007, AdamW 0.954-1.016, Adam+L2 0.953-1.036, Lion 1.054-1.185 (its prediction holds the bursts, but not the
# anticorrelation, which by itself makes 1.06-1.30). A layer varies between seeds by standard deviations of up to 0.006,
# 0.008, 0.017 and 0.016: a gate is the range widened by four of them. The head must miss the gate of AdamW
# (0.585-0.596) and Lion (0.353-0.364): one that it passed would show nothing.
GATES = {"sgdm": (0.96, 1.031), "adamw": (0.922, 1.048), "adam_l2": (0.885, 1.104), "lion": (0.99, 1.249)}
# 0.888-1.007, Lion 0.852-0.955 with deviations of up to 0.010
NORM = {"sgdm": (0.95, 1.03), "adamw": (0.95, 1.03), "adam_l2": (0.87, 1.03), "lion": (0.812, 0.995)}

SMALL = GPTSize(layers=1, width=16, heads=2, context=8)


def test_the_corpus_is_the_frozen_one(tmp_path):
    text = load_corpus()
    assert len(text.train) + len(text.validation) == 8_000_000
    assert int(text.train.min()) >= 0 and int(text.train.max()) <= 127
    assert b"import" in bytes(text.train[:100_000].tolist())
    (tmp_path / "corpus.xz").write_bytes(b"something else")
    with pytest.raises(InvalidInput, match=r"corpus\.xz has SHA-256"):
        load_corpus(tmp_path / "corpus.xz")
    with pytest.raises(InvalidInput, match="is missing; restore"):
        load_corpus(tmp_path / "absent.xz")


@pytest.mark.parametrize("normalised", [True, False])
def test_rows_of_the_normalised_gpt_are_scale_invariant_and_those_of_the_plain_one_are_not(normalised):
    torch.manual_seed(0)
    model = GPT(SMALL, normalised).double()
    tokens = torch.randint(128, (2, 8))
    before = model(tokens).detach()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    assert len(matrices) == 9
    with torch.no_grad():
        for weight in matrices:
            weight.mul_(torch.linspace(0.5, 3, len(weight), dtype=torch.float64)[:, None])
    change = (model(tokens) - before).abs().max() / before.abs().max()
    assert change < 1e-10 if normalised else change > 0.1


def test_a_gpt_sees_no_later_byte():
    torch.manual_seed(0)
    model = GPT(SMALL, normalised=True)
    tokens = torch.randint(128, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 128
    difference = (model(tokens) - model(changed)).abs().amax(-1)[0]
    assert difference[:5].max() == 0 and difference[5:].min() > 0


def test_a_suite_runs_resumes_and_reports(tmp_path, monkeypatch):
    runs = {
        "wngpt_adamw": TextRun("adamw", 2e-3, 0.5, steps=120, size=SMALL, batch=4),
        "fashion_sgdm": suite.SUITES["cpu"]["fashion_sgdm"],
    }
    monkeypatch.setitem(suite.SUITES, "ci", runs)
    monkeypatch.delenv("ROTSIM_DATA", raising=False)
    monkeypatch.setattr("experiments.networks.data.INSTALLED", tmp_path / "nowhere")
    arguments = ["--suite", "ci", "--device", "cpu", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "skipped fashion_sgdm: Fashion-MNIST is not in" in " ".join(result.output.split())
    report = (tmp_path / "README.md").read_text()
    assert "## wngpt_adamw" in report and "blocks.0.down" in report and "on stdlib" in report
    first = (tmp_path / "wngpt_adamw.nc").stat().st_mtime_ns
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert (tmp_path / "wngpt_adamw.nc").stat().st_mtime_ns == first  # resumed: not run again
    assert CliRunner().invoke(main, [*arguments, "--seed", "1"]).exit_code == 0
    assert (tmp_path / "wngpt_adamw.nc").stat().st_mtime_ns != first  # another seed is another run
    assert load(tmp_path / "wngpt_adamw.nc").sizes["step"] == 24


@pytest.fixture(scope="module")
def ci(tmp_path_factory):
    """The ci suite as the command runs it: its folder, and the diagnosis of each run."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("ci")
    result = CliRunner().invoke(main, ["--suite", "ci", "--output", str(folder)])
    assert result.exit_code == 0, result.output
    return folder, {name: diagnose(load(folder / f"digits_{name}.nc")) for name in GATES}


def test_the_ci_suite_agrees_with_theory(ci):
    folder, diagnoses = ci
    for name, diagnosis in diagnoses.items():
        *hidden, head = diagnosis.layers
        (low, high), (short, long) = GATES[name], NORM[name]
        assert all(low < layer.ratio < high for layer in hidden), name
        assert all(short < layer.norm_ratio < long for layer in hidden), name
        assert all(layer.cosine < 0.01 for layer in hidden) and head.cosine > 1
        assert head.verdict != "applies"
        if name in ("adamw", "lion"):
            assert head.ratio < 0.75
        if name != "lion":  # in which successive gradients are anticorrelated, by about as much as matters
            assert diagnosis.passed and len(diagnosis.claimed) >= 2
    report = (folder / "README.md").read_text()
    assert report.count("| **applies** |") == sum(len(d.claimed) for d in diagnoses.values())


def test_adam_l2_turns_its_neurons_less_evenly_than_adamw(ci):
    _, diagnoses = ci
    spread = {name: max(layer.spread for layer in diagnosis.layers[:3]) for name, diagnosis in diagnoses.items()}
    assert spread["adam_l2"] > 2 * spread["adamw"]


def shrunk(run):
    """The same kind of run, small enough for a test."""
    if hasattr(run, "widths"):
        return replace(run, widths=(1, 2, 3, 4, 10), batch=4)
    return replace(run, size=SMALL, batch=2)


def test_the_gpu_suite_runs_where_there_is_none(tmp_path, monkeypatch):
    """Every kind of run of the suite, made small: convolutions, both GPTs, and the warm-up grid's table."""
    name = "gpu"
    assert suite.SUITES["gpu"].keys() == suite.SUITES["gpu-reduced"].keys()
    chosen = (
        "resnet20_lion",
        "wngpt_adam_l2",
        "gpt_adamw",
        "warmup_adamw_0.004_0.1",
        "warmup_rotational_adamw_0.004_0.1",
    )
    monkeypatch.setitem(suite.SUITES, name, {key: shrunk(suite.SUITES[name][key]) for key in chosen})
    monkeypatch.setattr(record, "load_images", lambda *_: _noise_images())
    arguments = ["--suite", name, "--device", "cpu", "--steps", "60", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert {path.stem for path in tmp_path.glob("*.nc")} == set(chosen)
    trace = load(tmp_path / "resnet20_lion.nc")
    assert sorted(set(trace["fan_in"].values.tolist())) == [4, 9, 18, 27, 36]  # in · 3 · 3, and the head
    assert len(set(trace["layer"].values.tolist())) == 20
    report = (tmp_path / "README.md").read_text()
    assert "## Warm-up" in report and "| rotational_adamw | 0.004 | - | " in report
    assert "resnet20_lion.png" in report and "CPU (" in report
    assert "warmup_adamw" not in report.split("## Warm-up")[0]


def _noise_images():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 784, generator=draw), torch.randint(10, (64,), generator=draw)
    return Images("noise", x, y, x, y)


def test_bad_choices_are_answered():
    with pytest.raises(InvalidInput, match="`--only` names nothing; suite ci has digits_adamw"):
        suite.runs_of("ci", ("nothing",), 0, None)
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInput, match="torch sees no CUDA device"):
            suite.choose_device("cuda")
        assert suite.choose_device("auto").type == "cpu"
