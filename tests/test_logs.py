"""Logs of other programs: read into the trace that a recorder would have written, or refused in one line."""

import gzip
import io
import json
import lzma
import pickle

import numpy as np
import pytest
import torch

import rotsim
from rotsim.cli import main
from rotsim.diagnosis import diagnose
from rotsim.measure import read_log
from rotsim.measure.arrays import read_arrays

ADAMW = rotsim.AdamW(1e-2, 0.1, betas=(0.9, 0.99))
DIM, NEURONS, STEPS, EVERY = 64, 24, 2000, 20


@pytest.fixture(scope="module")
def walk():
    """Every twentieth step of a simulation, as a logger looks."""
    data = rotsim.simulate(ADAMW, DIM, NEURONS, STEPS, initial_norm=0.5, record_every=1)
    return data.isel(step=slice(EVERY - 1, None, EVERY))


def rows(walk, **names):
    """One mapping per step and neuron, and the norm before the first step."""
    looks = np.stack([walk.norm.values, walk.rotation.values])
    name = {key: names.get(key, key) for key in ("step", "layer", "neuron", "norm", "rotation", "fan_in")}
    for neuron in range(NEURONS):
        same = {name["layer"]: "fc.weight", name["neuron"]: neuron, name["fan_in"]: DIM}
        yield {name["step"]: 0, **same, name["norm"]: 0.5, name["rotation"]: None}
        for step, norm, angle in zip(walk.step.values, *looks[:, neuron], strict=True):
            yield {name["step"]: int(step), **same, name["norm"]: float(norm), name["rotation"]: float(angle)}


def csv_of(mappings):
    mappings = list(mappings)
    lines = [",".join(mappings[0])] + [",".join("" if v is None else str(v) for v in m.values()) for m in mappings]
    return "\n".join(lines).encode()


def jsonl_of(mappings):
    return "\n".join(map(json.dumps, mappings)).encode()


def same(one, two):
    assert one["step"].values.tolist() == two["step"].values.tolist()
    for name in ("norm", "rotation"):
        np.testing.assert_allclose(one[name].values, two[name].values, rtol=1e-6)


@pytest.fixture(scope="module")
def trace(walk, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_bytes(csv_of(rows(walk)))
    return read_log(path, ADAMW, scale_invariant=["fc"])


def test_a_log_is_judged_as_a_trace_is(walk, trace):
    same(trace, walk)
    assert trace["initial_norm"].values.tolist() == [0.5] * NEURONS and (trace["span"] == 1).all()
    (layer,) = diagnose(trace).layers
    assert layer.applies and layer.agrees, layer.reason
    wrong = trace.assign_attrs(optimizer=json.dumps(ADAMW.with_rates(1e-2, 0.4).to_dict()))
    (layer,) = diagnose(wrong.assign_coords(weight_decay=0.4 + 0 * trace["weight_decay"]).drop_vars(
        ["window_weight_decay", "window_lr"]
    )).layers  # fmt: skip
    assert layer.applies and not layer.agrees  # the control: another decay


def test_names_of_columns_forms_and_packing(walk, trace, tmp_path):
    names = dict(step="iter", layer="module", neuron="unit", norm="w_norm", rotation="angle", fan_in="inputs")
    content = csv_of(rows(walk, **names))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(content))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "a.jsonl").write_bytes(jsonl_of(rows(walk, **names)))
    for name in ("a.csv.xz", "a.csv.gz", "a.jsonl"):
        same(read_log(tmp_path / name, ADAMW, names), trace)


def test_a_column_for_each_layer_and_a_list_of_neurons(walk, trace, tmp_path):
    path = tmp_path / "wandb.jsonl"
    path.write_bytes(jsonl_of(
        {"_step": int(step), "loss": 1.0, "fc/norm": norm.tolist(), "fc/angle": angle.tolist()}
        for step, norm, angle in zip(walk.step.values, walk.norm.values.T, walk.rotation.values.T, strict=True)
    ))  # fmt: skip
    columns = {"step": "_step", "norm": "{layer}/norm", "rotation": "{layer}/angle"}
    same(read_log(path, ADAMW, columns, fan_in={"fc": DIM}), trace)
    with pytest.raises(rotsim.InvalidInput, match="the fan-in of layer 'fc' is not in the log"):
        read_log(path, ADAMW, columns)


def test_rates_in_the_log_count_more_than_those_given(walk, tmp_path):
    path, table = tmp_path / "log.csv", list(rows(walk))
    path.write_bytes(csv_of({**row, "lr": 1e-3 * (1 + row["step"] / STEPS), "weight_decay": 0.3} for row in table))
    found = read_log(path, ADAMW)
    assert found["lr"].values[0] == pytest.approx(2e-3) and found["weight_decay"].values[0] == 0.3
    assert found["window_lr"].values[0, 0] == pytest.approx(1e-3 * 1.01)
    matrix = [{**row, "rows": 4, "columns": 16} for row in table if row["neuron"] == 0]
    for row in matrix:
        row["rms"] = row.pop("norm") / 8
        del row["fan_in"]
    path.write_bytes(csv_of(matrix))
    found = read_log(path, ADAMW)
    assert found["fan_in"].values.tolist() == [64]
    np.testing.assert_allclose(found["norm"].values[0], walk.norm.values[0], rtol=1e-6)


def dynamics(walk, kind):
    """As the authors' logger writes it: a pickle after a pickle, (looks, neurons), the norm before the step."""
    file = io.BytesIO()
    for part in (slice(None, 60), slice(60, None)):
        values = {"neuron_norm": walk.norm[:, part].values.T, "neuron_angular_update": walk.rotation[:, part].values.T}
        pickle.dump({name: {"fc.weight": kind(value)} for name, value in values.items()}, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float32)])
def test_the_pickle_of_the_papers_authors(walk, kind, tmp_path, capsys):
    path, output = tmp_path / "dynamics.pkl", tmp_path / "trace.nc"
    path.write_bytes(dynamics(walk, kind))
    command = ["trace", "import", str(path), "--output", str(output), "--optimizer", "adamw", "--lr", "0.01"]
    command += ["--weight-decay", "0.1", "--betas", "0.9", "0.99", "--interval", str(EVERY), "--fan-in", str(DIM)]
    assert main([*command, "--scale-invariant", "fc"]) == 0
    found = rotsim.load(output)
    assert found["step"].values.tolist() == (1 + EVERY * np.arange(STEPS // EVERY)).tolist()
    np.testing.assert_allclose(found["norm"].values, walk.norm.values, rtol=1e-6)
    assert main(["trace", "report", str(output)]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


class Code:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it was run')",))


def _giant():
    """A pickle of some bytes that asks for an array of a petabyte."""
    return pickle.dumps(np.zeros(3)).replace(b"K\x03\x85", b"\x8a\x07\x00\x00\x00\x00\x00\x00\x04\x85")


HOSTILE = {
    "code": (pickle.dumps(Code()), "asks for builtins.exec"),
    "code inside": (pickle.dumps({"neuron_norm": {"a": Code()}}), "nothing in it was run"),
    "system": (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
    "truncated": (pickle.dumps({"a": np.zeros(1000)})[:500], "no whole pickle"),
    "empty": (b"", "is empty"),
    "a memo of 4 billion": (b"\x80\x02]r\xff\xff\xff\x7f.", "a memo of 2147483647 entries"),
    "objects": (pickle.dumps({"a": np.array([{}, None])}), "arrays"),
    "a petabyte": (_giant(), "no whole pickle"),
    "nothing of ours": (pickle.dumps({"loss": {"a": np.zeros(3)}}), "holds no neuron_norm"),
    "a list": (pickle.dumps([1, 2]), "holds no neuron_norm"),
    "of unlike parts": (
        pickle.dumps({f"neuron_{k}": {"a": np.ones((4, 2))} for k in ("norm", "angular_update")}) + pickle.dumps({}),
        "in every part",
    ),
    "negative": (pickle.dumps({f"neuron_{k}": {"a": -np.ones((4, 2))} for k in ("norm", "angular_update")}), "`norm`"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_end_in_one_line(name, tmp_path, capsys):
    content, message = HOSTILE[name]
    path = tmp_path / "dynamics.pkl"
    path.write_bytes(content)
    command = ["trace", "import", str(path), "--output", str(tmp_path / "x.nc"), "--optimizer", "adamw", "--lr", "0.1"]
    command += ["--weight-decay", "0.1"]
    assert main([*command, "--fan-in", "8"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1, said


def test_a_tensor_that_repeats_one_number_is_refused(tmp_path):
    path = tmp_path / "dynamics.pkl"
    path.write_bytes(pickle.dumps({"a": torch.ones(1).expand(1 << 20, 1 << 20)}))
    with pytest.raises(rotsim.DatasetError, match="more numbers than the file holds"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is no table"),
        ("a.csv", b"step,norm,rotation\n", "has no rows"),
        ("a.csv", b"step,norm\n1,2\n", "has no column rotation"),
        ("a.csv", b"step,rotation\n1,2\n", "has no column norm or rms"),
        ("a.csv", b"step,norm,rotation\n1,x,2\n", "norm must be numbers; got 'x'"),
        ("a.csv", b"step,norm,rotation\n1,-3,2\n2,1,1", "`norm` must hold numbers from 0"),
        ("a.csv", b"step,norm,rotation\n1,inf,2\n2,1,1", "`norm` must hold numbers from 0"),
        ("a.csv", b"step,norm,rotation\n1.5,1,2\n", "step must be whole numbers"),
        ("a.csv", b"step,norm,rotation\n1,1,2\n1,1,2\n", "two rows for step 1"),
        ("a.csv", b"step,norm,rotation,rows,columns\n1,1,2,0,8\n", "rows and columns of layer 'all'"),
        ("a.csv", b"\xff\xfe\x00\x01,\n\x00", "is no table"),
        ("a.csv.xz", b"no xz", "cannot be read"),
        ("a.csv.gz", b"no gz", "cannot be read"),
        ("a.jsonl", b"{", "is no table"),
        ("a.jsonl", b"[1]\n[2]", "is no table"),
        ("a.jsonl", b'{"step": 1, "norm": [1, 2], "rotation": [1]}', "differ in length"),
        ("a.txt", b"", "a log must be a .csv"),
    ],
)
def test_hostile_tables_end_in_one_line(name, content, message, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(content)
    command = ["trace", "import", str(path), "--output", str(tmp_path / "x.nc"), "--optimizer", "adamw", "--lr", "0.1"]
    command += ["--weight-decay", "0.1"]
    assert main([*command, "--fan-in", "8"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1, said
    assert main([*command, "--column", "norm=absent"]) == 2


def test_options_that_do_not_fit(walk, tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_bytes(csv_of(rows(walk)))
    command = ["trace", "import", str(path), "--output", str(tmp_path / "x.nc"), "--optimizer"]
    for more, message in (
        (["adamw"], "`--lr` must be given for AdamW"),
        (["sgdm", "--lr", "0.1", "--betas", "0.9", "0.99"], "`--betas` is no hyperparameter of SGDM"),
        (["adamw", "--lr", "0.1", "--weight-decay", "0.1", "--column", "norm"], "`--column` takes NAME=VALUE"),
        (["adamw", "--lr", "0.1", "--weight-decay", "0.1", "--fan-in", "x"], "`--fan-in` takes a whole number"),
        (["adamw", "--lr", "0.1", "--weight-decay", "0.1", "--column", "angle=rotation"], "`columns`"),
        (["adamw", "--lr", "0.1", "--weight-decay", "0.1", "--warmup", "-1"], "`warmup`"),
    ):
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err
