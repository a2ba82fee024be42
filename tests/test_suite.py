"""The frozen corpus, the two GPTs, and the suite command: resume, skip, report."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from experiments.networks import record, suite  # noqa: E402
from experiments.networks.__main__ import RESULTS, main  # noqa: E402
from experiments.networks.corpus import load_corpus  # noqa: E402
from experiments.networks.data import Images  # noqa: E402
from experiments.networks.gpt import GPT, GPTSize  # noqa: E402
from experiments.networks.train_text import TextRun  # noqa: E402
from rotsim.dataset import load  # noqa: E402
from rotsim.diagnosis import TOLERANCE, diagnose  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure.shipped import TRACES  # noqa: E402
from tests.scatter import gate, values  # noqa: E402

pytestmark = pytest.mark.machine

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


@pytest.mark.slow
def test_a_suite_runs_resumes_and_reports(tmp_path, monkeypatch):
    runs = {
        "wngpt_adamw": TextRun("adamw", 2e-3, 0.5, steps=60, size=SMALL, batch=4),
        "fashion_sgdm": replace(suite.SUITES["cpu"]["fashion_sgdm"], batch=4),
        "fashion_lion": suite.SUITES["cpu"]["fashion_lion"],  # ships with the package
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
    assert "## fashion_lion" in report and not (tmp_path / "fashion_lion.nc").exists()
    first = (tmp_path / "wngpt_adamw.nc").stat().st_mtime_ns
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert (tmp_path / "wngpt_adamw.nc").stat().st_mtime_ns == first  # resumed: not run again
    assert CliRunner().invoke(main, [*arguments, "--seed", "1", "--only", "wngpt_adamw"]).exit_code == 0
    assert (tmp_path / "wngpt_adamw.nc").stat().st_mtime_ns != first  # another seed is another run
    assert load(tmp_path / "wngpt_adamw.nc").sizes["step"] == 12


def test_no_trace_is_committed_twice():
    files = [path for folder in (RESULTS, TRACES) for path in folder.rglob("*.nc")]
    digests = {sha256(path.read_bytes()).hexdigest() for path in files}
    assert len(digests) == len(files) > 30


@pytest.mark.slow
def test_every_run_of_a_suite_has_its_trace():
    for name, runs in suite.SUITES.items():
        folder = RESULTS / f"suite_{name}"
        if name == "gpu":  # of which the most valuable ones were run
            runs = {path.stem: runs[path.stem] for path in folder.glob("*.nc")}
            assert {run.optimizer for run in runs.values()} == {"adamw", "sgdm", "adam_l2", "lion", "muon"}
        tasks = [suite.Recording(key, run, folder, "cpu", None, "", print) for key, run in runs.items()]
        assert all(suite.Traces().find(task) for task in tasks)


OPTIMIZERS = ("sgdm", "adamw", "adam_l2", "lion")
HIDDEN = ("hidden0", "hidden1", "hidden2")

# Measured over predicted, medians over the neurons of a hidden layer, in the trainings of `tests.scatter`, whose table
# `python -m tests.scatter` prints. (Lion's successive gradients are anticorrelated: its
# prediction is up to 14 % off.) The head must miss the gate of AdamW and Lion: one that it passed would show nothing.
GATES = {
    quantity: {name: gate("suite", *(f"{name} {layer} {quantity}" for layer in HIDDEN)) for name in OPTIMIZERS}
    for quantity in TOLERANCE
}

# Hidden layers that agree at least. Of SGDM and AdamW it is the least of `tests.scatter`, whose trainings were judged
# before noise was counted. Two of Adam+L2's layers are too noisy in the committed training; Lion's may not be claimed.
AGREEING = {"sgdm": 3, "adamw": 2, "adam_l2": 1, "lion": 0}


def trained(folder, seed=0):
    """The ci suite as the command runs it: the diagnosis of each run."""
    result = CliRunner().invoke(main, ["--suite", "ci", "--output", str(folder), "--seed", str(seed)])
    assert result.exit_code == 0, result.output
    return {name: diagnose(load(folder / f"digits_{name}.nc")) for name in OPTIMIZERS}


def numbers(diagnoses):
    """What scatters from training to training."""
    found = {}
    for name, diagnosis in diagnoses.items():
        for layer in diagnosis.layers:
            which = f"{name} {layer.layer.removesuffix('.weight')}"
            found |= {f"{which} rotation": layer.ratio, f"{which} norm": layer.norm_ratio}
            found |= {f"{which} cosine": layer.cosine, f"{which} spread": layer.spread}
        found[f"{name} claimed"] = len(diagnosis.claimed)
        found[f"{name} agree"] = sum(layer.agrees for layer in diagnosis.claimed)
    return found


def measured(seed):
    """For `tests.scatter`."""
    with TemporaryDirectory() as folder:
        return numbers(trained(Path(folder), seed))


@pytest.fixture(scope="module")
def ci(tmp_path_factory):
    """The folder of one suite, and the diagnosis of each run."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("ci")
    return folder, trained(folder)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trainings_agree_with_theory_as_far_as_it_goes(name):
    """The committed trainings of `tests.scatter`, which take no training here and depend on no processor."""
    for quantity, allowed in TOLERANCE.items():
        off = [abs(values("suite", f"{name} {layer} {quantity}").mean() - 1) for layer in HIDDEN]
        if name != "lion":  # see above
            assert max(off) < allowed
    assert values("suite", f"{name} agree").min() >= AGREEING[name]
    assert name != "sgdm" or values("suite", "sgdm claimed").min() == len(HIDDEN)
    assert values("suite", f"{name} claimed").max() <= len(HIDDEN)  # never the head


@pytest.mark.few(2)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_committed_training_refutes_nothing(name):
    """Judged by the rules of today, which the table of `tests.scatter` may be older than."""
    trace = load(RESULTS / "suite_ci" / f"digits_{name}.nc")
    diagnosis = diagnose(trace)
    assert not diagnosis.refuted
    assert sum(layer.agrees for layer in diagnosis.claimed) >= AGREEING[name]
    if name == "adamw":  # negative control: a network that turns half as much again
        assert len(diagnose(trace.assign(rotation=1.5 * trace["rotation"])).refuted) >= AGREEING[name]


@pytest.mark.slow
def test_the_ci_suite_is_a_training_like_the_others(ci):
    """Within the scatter of trainings on other seeds and instruction sets; AdamW's and Lion's head is far outside."""
    folder, diagnoses = ci
    found = numbers(diagnoses)
    for name in OPTIMIZERS:
        assert not diagnoses[name].refuted
        for quantity in TOLERANCE:
            low, high = GATES[quantity][name]
            assert all(low < found[f"{name} {layer} {quantity}"] < high for layer in HIDDEN), (name, quantity)
            assert quantity == "norm" or name not in ("adamw", "lion") or found[f"{name} head rotation"] < low
        assert max(found[f"{name} {layer} cosine"] for layer in HIDDEN) < 0.01  # 1e-5 to 2e-4 in trainings
        assert found[f"{name} head cosine"] > 1  # 2.5 to 5
        assert diagnoses[name].layers[-1].verdict != "applies"
    report = (folder / "README.md").read_text()
    assert report.count("| **applies** |") == sum(len(d.claimed) for d in diagnoses.values())


@pytest.mark.slow
def test_adam_l2_turns_its_neurons_less_evenly_than_adamw(ci):
    """At least five times less in the trainings of `tests.scatter`."""

    def spread(name):
        return max(layer.spread for layer in diagnoses[name].layers[:3])

    _, diagnoses = ci
    assert spread("adam_l2") > 2 * spread("adamw")


def shrunk(run):
    """The same kind of run, small enough for a test."""
    if hasattr(run, "widths"):
        return replace(run, widths=(1, 2, 3, 4, 10), batch=4)
    return replace(run, size=SMALL, batch=2)


@pytest.mark.slow
def test_the_gpu_suite_runs_where_there_is_none(tmp_path, monkeypatch):
    """Every kind of run of the suite, made small: convolutions, both GPTs, and the warm-up grid's table."""
    name = "gpu"
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
