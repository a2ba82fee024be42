"""Files are complete or absent, carry their provenance, and damaged or foreign ones are refused in one line."""

import json
import os

import numpy as np
import pytest
import xarray as xr

import rotsim
from rotsim import dataset


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
