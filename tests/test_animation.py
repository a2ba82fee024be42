"""Movies: the path keeps every angle, the file is whole or absent, and bad names are one line."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import rotsim
from rotsim.cli import main
from rotsim.show import movies
from rotsim.show.animation import animate
from rotsim.show.sphere import Rolling
from rotsim.simulation import watched

SGDM = rotsim.SGDM(0.1, 0.1)


def walked(dim, steps=60):
    """Weights after every step, and the points that follow them."""
    weights, points = [], []

    def watch(step, now):
        weights.append(now.astype(np.float64))
        if step == 0:
            watch.rolling = Rolling(now)
        points.append(watch.rolling.follow(now))

    record = watched(watch, SGDM, dim=dim, neurons=4, steps=steps, record_every=1, seed=3)
    return np.array(weights), np.array(points), record


def angles(a, b):
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.arccos(np.clip(cosine, -1, 1))


@pytest.mark.parametrize("dim", [3, 64])
def test_the_path_keeps_the_angle_of_every_step(dim):
    weights, points, record = walked(dim)
    steps = angles(points[1:], points[:-1])
    np.testing.assert_allclose(steps, record["rotation"].values.T, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), 1, rtol=1e-12)
    shadow = angles(weights[1:, :, :3], weights[:-1, :, :3])  # a plain projection does not
    assert (dim == 3) == np.allclose(shadow, steps, rtol=1e-3)


def test_in_three_dimensions_it_is_the_walk_itself():
    weights, points, _ = walked(3)
    np.testing.assert_allclose(angles(points, points[:1]), angles(weights, weights[:1]), atol=1e-5)
    weights, points, _ = walked(64)  # control: in more it cannot be
    assert np.abs(angles(points, points[:1]) - angles(weights, weights[:1])).max() > 0.05


def test_what_is_watched_is_what_simulate_walks():
    weights, _, record = walked(64)
    walk = rotsim.simulate(SGDM, dim=64, neurons=4, steps=60, record_every=1, seed=3, engine="numba", keep_state=True)
    assert record.drop_attrs().equals(walk[list(record)].drop_attrs())
    np.testing.assert_allclose(np.linalg.norm(weights[1:], axis=-1).T, walk["norm"], rtol=1e-6)


def test_a_gif_has_its_pictures_and_something_moves(tmp_path):
    told = []
    file = animate(
        [SGDM, rotsim.Rotational(SGDM)],
        tmp_path / "w.gif",
        dim=16,
        steps=30,
        frames=3,
        progress=lambda *p: told.append(p),
    )
    with Image.open(file) as movie:
        assert movie.n_frames == 4 and movie.size == (960, 540)
        pictures = []
        for number in range(4):
            movie.seek(number)
            pictures.append(np.asarray(movie.convert("RGB"), dtype=int))
    assert all((np.abs(a - b).sum(axis=2) > 60).sum() > 200 for a, b in pairwise(pictures))
    assert told[-1][0] == told[-1][1] and all(a[0] <= b[0] for a, b in pairwise(told))


def test_an_mp4_where_ffmpeg_is(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg", reason="the extra `movie` has ffmpeg")
    file = rotsim.animate(SGDM, tmp_path / "w.mp4", dim=8, steps=20, frames=2)
    assert file.read_bytes()[4:8] == b"ftyp"
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no such codec >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(movies, "_ffmpeg", lambda: str(broken))
    with pytest.raises(OSError, match="ffmpeg made no movie: no such codec"):
        rotsim.animate(SGDM, tmp_path / "no.mp4", dim=8, steps=20, frames=2)
    assert not (tmp_path / "no.mp4").exists()


def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch):
    known = ["animate", "sgdm", "--output"]
    for arguments, message in (
        ([*known, str(tmp_path / "w.avi")], "must end in .gif or .mp4; got"),
        ([*known, str(tmp_path / "w.gif"), "--set", "beta3=1"], "`--set` takes dampening, lr, momentum"),
        ([*known, str(tmp_path / "w.gif"), "--dim", "2"], "`dim` must be"),
        (["animate", *["sgdm"] * 5, "--output", str(tmp_path / "w.gif")], "must be one to 4; got 5"),
        ([*known, str(tmp_path / "absent" / "w.gif")], "does not exist"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    monkeypatch.setattr(movies.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main([*known, str(tmp_path / "w.mp4")]) == 2
    assert 'pip install "rotsim[movie]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("name", ["w.gif", "w.mp4"])
def test_ctrl_c_leaves_what_was_there(tmp_path, name):
    pytest.importorskip("imageio_ffmpeg", reason="the extra `movie` has ffmpeg")
    file = tmp_path / name
    file.write_text("earlier")
    script = (
        "import sys, rotsim.show.animation as a\n"
        "picture = a._Movie.picture\n"
        "def slow(self, number):\n"
        "    print('drawing', flush=True)\n"
        "    return picture(self, number)\n"
        "a._Movie.picture = slow\n"
        "from rotsim.cli import main\n"
        f"sys.exit(main(['animate', 'sgdm', '--steps', '3000', '--frames', '3000', '--output', {str(file)!r}]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "drawing\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; nothing was written" in said
    assert file.read_text() == "earlier" and os.listdir(tmp_path) == [name]
