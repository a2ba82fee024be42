"""The frozen corpus, the two GPTs, and the suite command: resume, skip, report."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from experiments.networks import suite  # noqa: E402
from experiments.networks.__main__ import main  # noqa: E402
from experiments.networks.corpus import load_corpus  # noqa: E402
from experiments.networks.gpt import GPT, GPTSize  # noqa: E402
from experiments.networks.train_text import TextRun  # noqa: E402
from rotsim.dataset import load  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402

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
        "wngpt_adamw": TextRun("adamw", 2e-3, 0.5, steps=400, size=SMALL, batch=4),
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
    assert load(tmp_path / "wngpt_adamw.nc").sizes["step"] >= 30


def test_bad_choices_are_answered():
    with pytest.raises(InvalidInput, match="`--only` names nothing; suite ci has digits_adamw"):
        suite.runs_of("ci", ("nothing",), 0, None)
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInput, match="torch sees no CUDA device"):
            suite.choose_device("cuda")
        assert suite.choose_device("auto").type == "cpu"
