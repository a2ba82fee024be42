"""docs/speed.md quotes committed timings, peers walk as rotsim's own update rules do; mutants are what they say."""

import ast
import json

import numpy as np
import pytest

from benchmarks import mutants, page, peers, rules
from benchmarks.mutations import Mutation, mutated, mutations


def test_the_timings_are_those_of_the_committed_results():
    assert len(peers.tables()) == len([path for path in peers.RESULTS if path.exists()]) > 0
    assert page.shown("peers") == "\n\n".join(peers.tables()), "run `python -m benchmarks.peers --table`"


def test_the_step_times_are_those_of_the_committed_results():
    pytest.importorskip("torch")
    from benchmarks import rotational

    assert page.shown("rotational") == rotational.committed_table(), "run `python -m benchmarks.rotational --table`"


def test_the_gpu_tables_are_those_of_the_committed_results():
    from benchmarks import gpu

    assert page.shown("gpu") == gpu.tables(), "run `python -m benchmarks.gpu --table`"
    assert all("H200" in table().splitlines()[0] for table in (gpu.engine, gpu.walk, gpu.rotational, gpu.recorder))


def test_a_table_goes_between_its_own_marks(tmp_path, monkeypatch):
    (begin, end), (other, close) = page.mark("peers"), page.mark("rotational")
    monkeypatch.setattr(page, "PAGE", tmp_path / "speed.md")
    page.PAGE.write_text(f"before\n\n{begin}\nold\n{end}\n\n{other}\nkept\n{close}\n\nafter\n")
    page.write("peers", "new")
    assert page.shown("peers") == "new" and page.shown("rotational") == "kept"
    page.write("peers", "new")
    assert page.PAGE.read_text() == f"before\n\n{begin}\n\nnew\n\n{end}\n\n{other}\nkept\n{close}\n\nafter\n"


@pytest.mark.parametrize("name", list(rules.OPTIMIZERS))
@pytest.mark.parametrize("scale_invariant", [True, False])
def test_a_peer_takes_the_steps_of_the_walk(name, scale_invariant):
    """NumPy in float64 against the optimizer's own rule on the same noise."""
    optimizer, rng = rules.OPTIMIZERS[name], np.random.default_rng(0)
    one, (size, root) = rules.step(name, scale_invariant, np), rules.factors(name, 5)
    w = rng.standard_normal((3, 16))
    m, v, own = np.zeros_like(w), np.zeros_like(w), (w, np.zeros_like(w), np.zeros_like(w))
    norm = np.linalg.norm(w, axis=1)
    steps = np.arange(1, 6)
    table = optimizer.coefficient_table(steps, np.full(5, optimizer.lr), np.full(5, optimizer.weight_decay))
    for t in range(5):
        z = rng.standard_normal(w.shape)
        before = own[0]
        length = np.linalg.norm(before, axis=1, keepdims=True)
        across = (z - (z * before).sum(1, keepdims=True) * before / length**2) / (length * 4.0)
        change, *moments = optimizer.update(*own, across if scale_invariant else z, table[t])
        own = (before + change, *moments)
        w, m, v, norm, angle = one(w, m, v, norm, z, float(size[t]), float(root[t]))
        np.testing.assert_allclose(w, own[0], rtol=1e-6)
        cosine = (before * own[0]).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(own[0], axis=1)
        np.testing.assert_allclose(angle, np.arccos(cosine), rtol=1e-5)
        np.testing.assert_allclose(norm, np.linalg.norm(own[0], axis=1), rtol=1e-6)


def test_the_plain_turn_moves_at_most_twice_as_much_as_adamw():
    pytest.importorskip("torch")
    from benchmarks import rotational, traffic

    found = {}
    for name in traffic.SHOWN[:4]:
        found[name] = traffic.count(rotational.OPTIMIZERS[name], rotational.NETWORKS["ResNet-20"]("cpu"))
    plain, *turning = found.values()
    assert plain[0] == 9 and plain[1] == pytest.approx(20.0, abs=0.1)
    assert all(29 < moved < 42 and operations > 73 for operations, moved in turning)


SOURCE = '''
"""Text is left alone."""

LIMIT: int = 3


def f(x: float | None, y=0.5) -> list[int] | None:
    """As it is here."""
    if x < y and not x:
        x.z = max(x, y)
    return x[0] + 2
'''


def test_each_mutant_has_one_change_and_a_name_that_finds_it():
    found = list(mutations("m.py", SOURCE))
    assert len({m.name for m in found}) == len(found)
    texts = {mutated(m, SOURCE) for m in found}
    assert len(texts) == len(found) and ast.unparse(ast.parse(SOURCE)) not in texts
    changes = {m.change.partition(" → ")[2] for m in found if m.function == "f"}
    for expected in (
        "x <= y",
        "x >= y",
        "x < y or",
        "and x:",
        "min(x, y)",
        "max(y, x)",
        "pass",
        "x[-1]",
        "- 2",
        "+ 3",
        "+ 1",
    ):
        assert any(expected in change for change in changes), expected
    assert any("y=1.0" in change for change in changes)
    assert {m.change for m in found if m.function == "<module>"} == {
        f"LIMIT: int = 3 → LIMIT: int = {n}" for n in (2, 4)
    }
    with pytest.raises(LookupError, match="is no mutation"):
        mutated(Mutation("m.py", "f", "x → y"), SOURCE)


def test_the_committed_mutants_are_noticed_or_excused():
    """85 % are noticed; and what is excused is a mutant of the source as it is, and not among them."""
    result, excused = json.loads(mutants.RESULT.read_text()), mutants.equivalent()
    noticed = {m["name"] for m in result["mutants"] if m["noticed_by"] is not None}
    assert len(noticed) >= 0.85 * len(result["mutants"]) and not noticed & set(excused)
    for module in {name.split()[0] for name in excused}:
        known = {m.name for m in mutations(module, (mutants.ROOT / module).read_text())}
        assert {name for name in excused if name.split()[0] == module} <= known


def test_the_times_of_muon_are_those_of_the_committed_result():
    pytest.importorskip("torch")
    from benchmarks import muon

    result = json.loads(muon.RESULT.read_text())
    assert page.shown("muon") == muon.table(result), "run `python -m benchmarks.muon --table`"
    assert all(row["torch.optim.Muon"] > 5 * row["rotsim"] for row in result["sizes"])
