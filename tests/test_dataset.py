"""Files are complete or absent, carry their provenance, and damaged or foreign ones are refused in one line."""

import json
import os
import tracemalloc

import h5py
import numpy as np
import pytest
import xarray as xr

import rotsim
from rotsim import dataset, netcdf
from rotsim.balance import balance
from rotsim.cli import main
from rotsim.diagnosis import diagnose
from rotsim.measure.shipped import load_shipped, shipped_traces


@pytest.fixture(scope="module")
def walk():
    return rotsim.simulate(rotsim.Lion(1e-3, 1.0), dim=16, neurons=3, steps=300)


def test_round_trip(walk, tmp_path):
    path = rotsim.save(walk, tmp_path / "walk.nc")
    assert rotsim.load(path).identical(walk)
    assert os.listdir(tmp_path) == ["walk.nc"]


def test_schema(walk):
    assert walk.sizes == {"neuron": 3, "step": 3}
    assert walk.step.values.tolist() == [100, 200, 300]
    assert walk.rotation.attrs["units"] == "rad"
    assert (walk.fan_in == 16).all()
    assert dataset.optimizer_of(walk) == rotsim.Lion(1e-3, 1.0)
    assert dataset.spec_of(walk)["seed"] == 0
    origin = json.loads(walk.attrs["provenance"])
    assert {"rotsim", "numpy", "numba"} <= set(origin["versions"]) and origin["created"]


def test_unwritable(walk, tmp_path):
    with pytest.raises(rotsim.InvalidInput, match="does not exist; create it"):
        rotsim.save(walk, tmp_path / "no" / "walk.nc")
    with pytest.raises(rotsim.InvalidInput, match="is a directory"):
        rotsim.save(walk, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"not a dataset at all", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, b"\x80\x04K\x01."]
)
def test_foreign_file(content, tmp_path):
    path = tmp_path / "x.nc"
    path.write_bytes(content)
    with pytest.raises(rotsim.DatasetError, match="not a readable NetCDF-4 file"):
        rotsim.load(path)


def test_truncated_file(walk, tmp_path):
    path = rotsim.save(walk, tmp_path / "walk.nc")
    whole = path.read_bytes()
    for keep in (0.3, 0.7, 0.98):
        path.write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(rotsim.DatasetError) as error:
            rotsim.load(path)
        assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(rotsim.DatasetError, match="no dataset at"):
        rotsim.load(tmp_path / "none.nc")


def test_other_netcdf_file(tmp_path):
    xr.Dataset({"a": ("x", np.ones(3))}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(rotsim.DatasetError, match="not a rotsim dataset"):
        rotsim.load(tmp_path / "a.nc")


def test_validate_names_what_is_missing(walk):
    with pytest.raises(rotsim.DatasetError, match="lacks rotation"):
        dataset.validate(walk.drop_vars("rotation"))
    with pytest.raises(rotsim.DatasetError, match=r"schema 99.*upgrade rotsim"):
        dataset.validate(walk.assign_attrs(rotsim_schema=99))
    with pytest.raises(rotsim.DatasetError, match="`source` must be one of"):
        dataset.validate(walk.assign_attrs(source="guess"))


@pytest.fixture(scope="module")
def trace():
    return load_shipped("digits_lion")


def test_a_flipped_bit_is_noticed_wherever_it_is(walk, tmp_path):
    """In arrays, attributes, names, HDF5's own structure and the digest; only the digest's name may go unnoticed."""
    path = rotsim.save(walk, tmp_path / "walk.nc")
    whole = path.read_bytes()
    draw, unnoticed = np.random.default_rng(0), 0
    places = {*range(0, len(whole), 61), *range(len(whole) - netcdf._SEAL_BYTES, len(whole))}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            assert rotsim.load(path).identical(walk)
            unnoticed += 1
        except rotsim.DatasetError as error:
            assert "not what rotsim wrote" in str(error)
    assert len(places) > 300 and unnoticed == len(netcdf._MARK)


def test_a_byte_that_changes_in_a_file_without_a_digest_ends_in_a_dataset_or_a_dataset_error(walk, tmp_path):
    path = rotsim.save(walk, tmp_path / "walk.nc")
    whole = path.read_bytes()[: -netcdf._SEAL_BYTES]
    draw = np.random.default_rng(0)
    for place in range(0, len(whole), 1999):
        damaged = bytearray(whole)
        damaged[place] ^= int(draw.integers(1, 256))
        path.write_bytes(damaged)
        try:
            rotsim.load(path)
        except rotsim.DatasetError as error:
            assert "\n" not in str(error)


def test_other_readers_see_the_same(walk, tmp_path):
    path = rotsim.save(walk, tmp_path / "walk.nc")
    with xr.open_dataset(path) as handle:
        assert handle.load().identical(walk)
    with h5py.File(path) as file:
        assert file["norm"].fletcher32 and file["step"].fletcher32


def test_files_of_earlier_versions_load():
    """The shipped traces have no digest."""
    for name in ("digits_sgdm", "digits_lion"):
        path = shipped_traces()[name]
        assert netcdf._MARK not in path.read_bytes()
        with xr.open_dataset(path, engine="h5netcdf") as handle:
            assert load_shipped(name).identical(handle.load())


def _grown(file, name, **options):
    """The array `name` anew, of a size that no file of this length holds, and never written."""
    attributes = dict(file[name].attrs)
    del file[name]
    made = file.create_dataset(name, (1 << 15, 1 << 15), "f8", **options)
    for key in ("long_name", "units"):
        made.attrs[key] = attributes[key]


def _links_outside(file):
    del file["norm"]
    file["norm"] = h5py.ExternalLink("other.nc", "/norm")


def _links_inside(file):
    del file["norm"]
    file["norm"] = h5py.SoftLink("/rotation")


def _external(file):
    del file["norm"]
    file.create_dataset("norm", (3, 3), "f8", external=[("/etc/hostname", 0, 72)])


def _virtual(file):
    del file["norm"]
    layout = h5py.VirtualLayout((3, 3), "f8")
    layout[:] = h5py.VirtualSource("other.nc", "norm", (3, 3))
    file.create_virtual_dataset("norm", layout)


def _filtered(file):
    del file["norm"]
    file.create_dataset("norm", data=np.ones((3, 3)), chunks=(3, 3), compression="lzf")


def _group(file):
    file.create_group("more")


def _compound(file):
    file["more"] = np.zeros(3, [("a", "f8")])


def _large_chunk(file):
    del file["norm"]
    file.create_dataset("norm", (3, 3), "f8", maxshape=(None, None), chunks=(1 << 13, 1 << 13))


def _text_bomb(file):
    """Many entries that all point at one long text in the file."""
    del file["layer"]
    made = file.create_dataset("layer", (20_000,), h5py.string_dtype(), chunks=(20_000,), compression="gzip")
    made[0] = "x" * 60_000
    _, packed = made.id.read_direct_chunk((0,))
    import zlib

    reference = zlib.decompress(packed)[:16]
    made.id.write_direct_chunk((0,), zlib.compress(reference * 20_000))


def _deflate_bomb(file):
    """A part that unpacks to far more than its array declares."""
    import zlib

    del file["norm"]
    made = file.create_dataset("norm", (3, 3), "f8", chunks=(3, 3), compression="gzip")
    made.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 26), 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: _grown(file, "norm"), "need more than"),
        (lambda file: _grown(file, "norm", chunks=(1 << 10, 1 << 10), compression="gzip"), "need more than"),
        (_large_chunk, "need more than"),
        (_text_bomb, "need more than"),
        (_deflate_bomb, "holds more than it declares"),
        (_links_outside, "a link to elsewhere"),
        (_links_inside, "a link to elsewhere"),
        (_external, "stored in another file"),
        (_virtual, "stored in another file"),
        (_filtered, "compressed in a way that rotsim does not use"),
        (_group, "is no array"),
        (_compound, "numbers and text alone"),
    ],
)
def test_what_rotsim_never_writes_is_refused_before_it_is_read(change, message, walk, tmp_path):
    path = rotsim.save(walk.assign_coords(layer=("neuron", ["a", "b", "c"])), tmp_path / "walk.nc")
    path.write_bytes(path.read_bytes()[: -netcdf._SEAL_BYTES])
    assert rotsim.load(path).sizes == walk.sizes
    with h5py.File(path, "r+") as file:
        change(file)
    tracemalloc.start()
    try:
        with pytest.raises(rotsim.DatasetError, match=message):
            rotsim.load(path)
        assert tracemalloc.get_traced_memory()[1] < 40e6 + 1032 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_no_more_is_read_than_the_available_memory_allows(walk, tmp_path, monkeypatch):
    path = rotsim.save(walk, tmp_path / "walk.nc")
    monkeypatch.setattr(netcdf, "available_memory", lambda: 1000)
    with pytest.raises(rotsim.DatasetError, match="50% of the available memory"):
        rotsim.load(path)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "\ud800", "a/" * 3000])
def test_a_path_that_cannot_be(name):
    with pytest.raises(rotsim.DatasetError) as error:
        rotsim.load(name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert main(["compare", name]) == 2


def test_a_path_that_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(rotsim.DatasetError, match="no regular file"):
            rotsim.load(path)


def test_home_is_expanded(walk, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rotsim.save(walk, "~/walk.nc")
    assert rotsim.load("~/walk.nc").identical(walk)


ABSURD = [None, 3, "", "{", "[]", "null", "[" * 100_000, [1, 2], float("nan"), b"{}"]


@pytest.mark.parametrize("attribute", ["rotsim_schema", "source", "optimizer", "spec", "provenance"])
def test_a_damaged_attribute_is_a_dataset_error(attribute, trace):
    for value in [*ABSURD, -1, 1e30, True, np.ones(3, int)]:
        if attribute == "rotsim_schema" and value is True:
            value = np.array([True])
        with pytest.raises(rotsim.DatasetError) as error:
            dataset.validate(trace.assign_attrs({attribute: value}))
        assert "\n" not in str(error.value) and len(str(error.value)) < 600
    without = {name: value for name, value in trace.attrs.items() if name != attribute}
    with pytest.raises(rotsim.DatasetError):
        dataset.validate(trace.drop_attrs(deep=False).assign_attrs(without))


@pytest.mark.parametrize("key", ["layers", "dtypes", "skipped", "left", "changed", "changed_outside", "steps"])
def test_a_damaged_entry_of_the_spec_is_a_dataset_error(key, trace):
    spec = dataset.spec_of(trace)
    for value in (None, "x", [1], {"a": None}, 0.5):
        with pytest.raises(rotsim.DatasetError, match=f"`{key}` in attribute `spec` is damaged"):
            dataset.validate(trace.assign_attrs(spec=json.dumps({**spec, key: value})))


def test_what_describes_no_optimizer_or_gradient_is_a_dataset_error(walk):
    for description in ({}, {"name": "abacus"}, {"name": "lion", "lr": "fast"}, {"name": ["lion"]}):
        with pytest.raises(rotsim.DatasetError, match="describes no optimizer"):
            dataset.optimizer_of(walk.assign_attrs(optimizer=json.dumps(description)))
        damaged = walk.assign_attrs(spec=json.dumps({"gradient": description}))
        with pytest.raises(rotsim.DatasetError, match="describes no gradients"):
            dataset.gradient_of(damaged)
    with pytest.raises(rotsim.DatasetError, match="lacks 'gradient'"):
        dataset.gradient_of(walk.assign_attrs(spec="{}"))


def test_dimensions_types_and_steps_are_checked(walk, trace):
    dims, floats = ("neuron", "step"), np.ones((3, 3))
    for damaged, message in (
        (walk.assign(norm=(("step", "neuron"), floats)), "`norm` must have dimensions"),
        (walk.assign(norm=(dims, floats.astype(int))), "`norm` must hold values of type float"),
        (walk.assign(norm=(dims, floats.astype(str))), "`norm` must hold values of type float"),
        (walk.assign_coords(fan_in=("neuron", np.ones(3))), "`fan_in` must hold values of type int"),
        (walk.assign_coords(fan_in=("neuron", np.zeros(3, int))), "`fan_in` must be >= 1"),
        (walk.assign_coords(step=[100, 300, 200]), "`step` must be >= 1 and increase"),
        (walk.assign_coords(step=[100, 100, 200]), "`step` must be >= 1 and increase"),
        (walk.assign_coords(step=[0, 100, 200]), "`step` must be >= 1 and increase"),
        (walk.assign_coords(step=[1.0, 2.0, 3.0]), "`step` must hold values of type int"),
        (walk.isel(step=[]), "must have neurons and steps"),
        (walk.isel(neuron=[]), "must have neurons and steps"),
        (trace.assign_coords(layer=("neuron", np.arange(trace.sizes["neuron"]))), "`layer` must hold values of type"),
        (trace.assign(gradient_log2=trace["gradient_log2"] / 2), "`gradient_log2` must hold values of type int"),
    ):
        with pytest.raises(rotsim.DatasetError, match=message):
            dataset.validate(damaged)


def test_a_trace_without_a_variable_that_its_report_needs(trace, tmp_path, capsys):
    for name in ("layer", "lr", "weight_decay", "active", "gradient_scale", "row_layer"):
        short = trace.drop_vars(name)
        with pytest.raises(rotsim.DatasetError, match=f"the trace lacks {name}, which rotsim.measure.Recorder writes"):
            diagnose(short)
    old = rotsim.save(trace.drop_vars(["radial", "gradient_cosine"]), tmp_path / "old.nc")  # of an earlier recorder
    assert main(["trace", "report", str(old), "--output", str(tmp_path / "report")]) == 0
    capsys.readouterr()
    path = rotsim.save(short, tmp_path / "short.nc")
    for command in (["trace", "report", str(path)], ["compare", str(path)]):
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_minimal_trace_is_refused_in_one_line():
    ones, optimizer = np.ones((4, 40)), rotsim.AdamW(1e-2, 0.1)
    minimal = dataset.build(
        "trace",
        step=np.arange(1, 41) * 10,
        variables=dict(norm=ones, rotation=0.01 * ones, update_rms=0.01 * ones),
        optimizer=optimizer,
        layer=np.array(["a.weight"] * 4),
        fan_in=64,
        spec={},
    )
    for use in (diagnose, balance):
        with pytest.raises(rotsim.DatasetError, match="the trace lacks"):
            use(minimal)


def test_a_prediction_is_no_measurement(tmp_path, capsys):
    path = rotsim.save(rotsim.predict(rotsim.SGDM(0.1, 0.1), dim=64, steps=200), tmp_path / "course.nc")
    assert main(["compare", str(path)]) == 2
    assert "a prediction is no measurement" in capsys.readouterr().err
