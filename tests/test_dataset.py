"""Files are complete or absent, carry their provenance, and damaged or foreign ones are refused in one line."""

import json
import os
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import rotsim
from rotsim import dataset, netcdf
from rotsim.balance import balance
from rotsim.cli import main
from rotsim.diagnosis import diagnose
from rotsim.measure.shipped import load_shipped


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


def test_a_file_of_an_earlier_version_is_read_and_judged():
    """This one has no digest, no norm before the first step, and no eras."""
    path = Path(__file__).parent / "earlier.nc"
    assert netcdf._MARK not in path.read_bytes()
    found = dataset.load(path)
    with xr.open_dataset(path, engine="h5netcdf") as handle:
        assert found.identical(handle.load())
    assert not {"initial_norm", "era"} & set(found.coords)
    assert [layer.outcome for layer in diagnose(found).layers] == ["PASS"] * 3 + [None]


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


def _anew(file, **options):
    """The norms anew, with these options of a dataset."""
    del file["norm"]
    return file.create_dataset("norm", (3, 3), "f8", chunks=(3, 3), **options)


def _chunk(packed, skipped=0):
    def change(file):
        _anew(file, compression="gzip").id.write_direct_chunk((0, 0), packed, filter_mask=skipped)

    return change


def _foreign_filter(file, *filters):
    del file["norm"]
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((3, 3))
    for kind in filters:
        made.set_filter(kind, h5py.h5z.FLAG_OPTIONAL, (1,))
    h5py.h5d.create(file.id, b"norm", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((3, 3)), made)


def _replaced(name, **made):
    def change(file):
        del file[name]
        file.create_dataset(name, **made)

    return change


def _many_links(file):
    for index in range(300):
        file[f"norm{index}"] = file["norm"]


def _many_attributes(file):
    for index in range(1100):
        file["norm"].attrs[f"a{index}"] = index


def _attribute(value, **options):
    return lambda file: file.attrs.create("more", value(file) if callable(value) else value, **options)


def _nested(file):
    for _ in range(50):
        file = file.create_group("more")


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
    reference = zlib.decompress(packed)[:16]
    made.id.write_direct_chunk((0,), zlib.compress(reference * 20_000))


def _deflate_bomb(file):
    """A part that unpacks to far more than its array declares."""
    del file["norm"]
    made = file.create_dataset("norm", (3, 3), "f8", chunks=(3, 3), compression="gzip")
    made.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 26), 9))


@pytest.mark.few(12)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: _grown(file, "norm"), "need more than"),
        (lambda file: _grown(file, "norm", chunks=(1 << 10, 1 << 10), compression="gzip"), "need more than"),
        (_large_chunk, "need more than"),
        (_text_bomb, "need more than"),
        (_deflate_bomb, "does not hold what it declares"),
        (_links_outside, "a link to elsewhere"),
        (_links_inside, "a link to elsewhere"),
        (_external, "stored in another file"),
        (_virtual, "stored in another file"),
        (_filtered, "compressed in a way that rotsim does not use"),
        (_group, "is no array"),
        (_nested, "is no array"),
        (lambda file: file.__setitem__("loop", file["/"]), "'loop' is no array"),
        (lambda file: file.__setitem__("kind", np.dtype("f8")), "'kind' is no array"),
        (lambda file: file.__setitem__("loop", h5py.SoftLink("/loop")), "a link to elsewhere"),
        (_replaced("norm", shape=(3, 3), dtype=h5py.ref_dtype), "numbers and text alone"),
        (_replaced("norm", shape=(3, 3), dtype=h5py.vlen_dtype("f8")), "numbers and text alone"),
        (_replaced("norm", data=np.ones((3, 3), complex)), "numbers and text alone"),
        (_replaced("norm", data=np.zeros((3, 3), "V8")), "numbers and text alone"),
        (_replaced("norm", shape=(3, 3), dtype=h5py.enum_dtype({"A": 1})), "`norm` must hold values of type float"),
        (_replaced("norm", data=np.ones((3, 3), bool)), "`norm` must"),
        (_replaced("norm", data=1.0), "`norm` must have dimensions"),
        (_replaced("norm", data=h5py.Empty("f8")), "not a readable"),
        (_replaced("norm", shape=(0, 3), dtype="f8"), "`norm` must have dimensions"),
        (_replaced("norm", shape=(1,) * 32, dtype="f8"), "`norm` must have dimensions"),
        (_replaced("norm", shape=(2**40, 2**20), dtype="f8", chunks=(1, 1)), "need more than"),
        (_replaced("layer", shape=(3,), dtype="S1000000000"), "need more than"),
        (_replaced("layer", data=[b"\xff\xfe"] * 3, dtype=h5py.string_dtype()), "not a readable"),
        (_replaced("neuron", data=[1, 2, 3]), "not a readable"),
        (_chunk(zlib.compress(bytes(8))), "does not hold what it declares"),
        (_chunk(bytes(5), skipped=1), "does not hold what it declares"),
        (_chunk(zlib.compress(bytes(72)) + b"more"), "does not hold what it declares"),
        (_chunk(zlib.compress(bytes(72))[:-3]), "does not hold what it declares"),
        (_chunk(b"garbage"), "not a readable"),
        (lambda file: _foreign_filter(file, 32015), "does not use"),
        (lambda file: _foreign_filter(file, 1, 1), "does not use"),
        (_many_links, "it has 307 parts"),
        (_many_attributes, "more than 1024 attributes"),
        (_attribute(lambda file: file["norm"].ref, dtype=h5py.ref_dtype), "attribute 'more' holds object"),
        (_attribute(lambda file: file["norm"].regionref[:1], dtype=h5py.regionref_dtype), "attribute 'more' holds"),
        (_attribute(np.zeros(3, [("a", "f8")])), "attribute 'more' holds"),
        (_attribute(np.void(b"abc")), "attribute 'more' holds"),
        (lambda file: file["norm"].attrs.__setitem__("coordinates", 3), "not a readable"),
        (lambda file: file["norm"].attrs.__setitem__("DIMENSION_LIST", [1, 2]), "not a readable"),
        (lambda file: file["step"].__setitem__(slice(None), [-3, -2, -1]), "`step` must be >= 1"),
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


def test_the_same_file_with_nothing_wrong_loads(walk, tmp_path):
    """The control: parts and attributes made anew in the same ways, but sound."""
    path = rotsim.save(walk, tmp_path / "walk.nc")
    path.write_bytes(path.read_bytes()[: -netcdf._SEAL_BYTES])
    with h5py.File(path, "r+") as file:
        norm = file["norm"][:]
        for skipped, packed in ((0, zlib.compress(norm.tobytes())), (1, norm.tobytes())):
            scales = [dimension[0] for dimension in file["norm"].dims]
            attributes = {name: file["norm"].attrs[name] for name in ("long_name", "units")}
            _chunk(packed, skipped)(file)
            for dimension, scale in zip(file["norm"].dims, scales, strict=True):
                dimension.attach_scale(scale)
            file["norm"].attrs.update(attributes)
    loaded = rotsim.load(path)
    assert loaded.norm.identical(walk.norm) and loaded.attrs == walk.attrs


@pytest.mark.parametrize("extra", [{"title": ""}, {"scores": [1.0, 2.0]}, {"names": ["a", "b"]}, {"count": np.int8(3)}])
def test_attributes_of_a_caller_come_back(extra, walk, tmp_path):
    loaded = rotsim.load(rotsim.save(walk.assign_attrs(extra), tmp_path / "walk.nc"))
    for name, value in extra.items():
        assert np.array_equal(loaded.attrs[name], value)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "change",
    [
        lambda walk: walk.assign_attrs(more=object()),
        lambda walk: walk.assign_attrs(more={"a": 1}),
        lambda walk: walk.assign_attrs(more=1j),
        lambda walk: walk.assign(more=("neuron", [object()] * 3)),
        lambda walk: walk.assign(more=("neuron", [1j] * 3)),
        lambda walk: walk.assign_coords(layer=("neuron", ["\ud800"] * 3)),
        lambda walk: walk.assign({f"more{index}": 1.0 for index in range(300)}),
        lambda walk: walk.assign_attrs({f"more{index}": 1.0 for index in range(1100)}),
    ],
)
def test_what_cannot_be_loaded_again_is_not_saved(change, walk, tmp_path):
    path = rotsim.save(walk, tmp_path / "walk.nc")
    before = path.read_bytes()
    with pytest.raises(rotsim.DatasetError):
        rotsim.save(change(walk), path)
    assert path.read_bytes() == before


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


@pytest.mark.slow
def test_a_trace_that_lacks_what_the_recorder_writes_is_judged_by_what_it_has(trace, tmp_path, capsys):
    plain = load_shipped("digits_sgdm")  # without the series that signs need
    whole = plain.assign_coords(
        initial_norm=plain["norm"].isel(step=0).drop_vars("step"), initial_step=xr.zeros_like(plain["neuron"])
    )
    optional = set(whole.variables) - {*dataset.QUANTITIES, "neuron", "step", "fan_in"}
    assert {"radial", "active", "gradient_scale", "initial_step", "parameter", "layer"} <= optional
    for name in sorted(optional):
        assert diagnose(whole.drop_vars(name)).layers, name
    assert len(diagnose(whole.drop_vars(optional)).layers) == 1  # all neurons as one layer
    series = {"row_layer", "tick", "gradient_log2", "gradient_overlap"}
    assert set(trace.variables) - set(plain.variables) == series
    assert diagnose(trace.drop_vars(series)).layers
    old = rotsim.save(plain.drop_vars(["radial", "gradient_cosine"]), tmp_path / "old.nc")  # of an earlier recorder
    assert main(["trace", "report", str(old)]) == 0
    capsys.readouterr()
    for name in ("row_layer", "tick"):  # a series without what it is of
        path = rotsim.save(trace.drop_vars(name), tmp_path / "short.nc")
        for command in (["trace", "report", str(path)], ["compare", str(path)]):
            assert main(command) == 2
            assert f"the trace lacks {name}" in capsys.readouterr().err


@pytest.mark.parametrize("given", [{"layer": np.array(["a.weight"] * 4)}, {}])
def test_a_minimal_trace_is_judged_by_its_course(given, tmp_path, capsys):
    ones, optimizer = np.ones((4, 40)), rotsim.AdamW(1e-2, 0.1)
    values = dict(norm=ones, rotation=0.01 * ones, update_rms=0.01 * ones)
    minimal = dataset.build(
        "trace", step=np.arange(1, 41) * 10, variables=values, optimizer=optimizer, fan_in=64, spec={}, **given
    )
    (layer,) = diagnose(minimal).layers
    assert layer.predicted_norm > 1 and layer.measured_rotation == pytest.approx(0.01)
    assert balance(minimal).across_layers == 1
    path = str(rotsim.save(minimal, tmp_path / "minimal.nc"))
    for command in (["trace", "report", path, "--output", str(tmp_path / "x")], ["trace", "compare", path, path]):
        assert main(command) == 0
    unknown = minimal.assign_attrs(optimizer=json.dumps(rotsim.SGDM(0.1, 1e-3).to_dict()))
    assert diagnose(unknown).layers[0].verdict == "unknown"  # its norm depends on the gradient's size
    capsys.readouterr()


def test_a_prediction_is_no_measurement(tmp_path, capsys):
    path = rotsim.save(rotsim.predict(rotsim.SGDM(0.1, 0.1), dim=64, steps=200), tmp_path / "course.nc")
    assert main(["compare", str(path)]) == 2
    assert "a prediction is no measurement" in capsys.readouterr().err
