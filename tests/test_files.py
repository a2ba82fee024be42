"""Writing a file: through links, never over a device, whole or not at all, beside other threads and dead processes."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import rotsim
from rotsim import files
from rotsim.cli import main
from rotsim.files import check_writable, output_folder, write_atomically

SGDM = ["sgdm", "--lr", "0.1", "--weight-decay", "0.1"]
WALK = ["simulate", *SGDM, "--dim", "8", "--neurons", "2", "--steps", "200", "--engine", "numpy"]


@pytest.fixture(scope="module")
def walk():
    return rotsim.simulate(rotsim.SGDM(0.1, 0.1), dim=8, neurons=2, steps=200, engine="numpy")


@contextmanager
def open_socket(path):
    """A socket that lies at `path`, bound from its folder: a socket's address is short."""
    before = Path.cwd()
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(path.parent)
        try:
            bound.bind(path.name)
        finally:
            os.chdir(before)
        yield


def test_a_link_stays_and_its_target_is_written(tmp_path):
    real, link, dangling = tmp_path / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_text("old")
    link.symlink_to("real")
    dangling.symlink_to(tmp_path / "new")
    assert write_atomically(link, "through") == real
    write_atomically(dangling, "through")
    assert link.is_symlink() and dangling.is_symlink()
    assert real.read_text() == (tmp_path / "new").read_text() == "through"
    link.unlink()
    link.symlink_to("/no/such/folder/x.json")
    with pytest.raises(rotsim.InvalidInput, match="does not exist"):
        write_atomically(link, "lost")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(rotsim.InvalidInput, match="cannot be written"):
        write_atomically(tmp_path / "round", "lost")


def test_what_is_no_regular_file_is_refused_before_the_walk(tmp_path, capsys):
    pipe, plug = tmp_path / "pipe", tmp_path / "plug"
    os.mkfifo(pipe)
    with open_socket(plug):
        for path, word in ((pipe, "a pipe"), (plug, "a socket"), (Path("/dev/null"), "a device"), (tmp_path, "a dir")):
            before = os.lstat(path)
            assert main([*WALK, "--output", str(path)]) == 2
            printed = capsys.readouterr()
            assert word in printed.err and printed.err.count("\n") == 1 and not printed.out
            assert (before.st_mode, before.st_ino) == (os.lstat(path).st_mode, os.lstat(path).st_ino)
    assert main(["equilibrium", *SGDM, "--output", str(pipe)]) == 2
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="device nodes need root")
def test_a_device_node_of_ours_survives(tmp_path):
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this root may not make device nodes")
    with pytest.raises(rotsim.InvalidInput, match="a device"):
        write_atomically(node, "x")
    assert stat.S_ISCHR(os.lstat(node).st_mode)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must not be empty"),
        ("a\0b", "NUL"),
        ("x" * 300, "File name too long"),
        ("a/" * 2500 + "x", "File name too long"),
        ("folder/", "ends in a slash"),
        ("\ud800.nc", "this system can encode"),
        ("file/x.nc", "cannot be written"),
    ],
)
def test_a_name_that_cannot_be_a_file_is_one_line_before_the_walk(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main([*WALK, "--output", name]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
    assert len(printed.err) < 450
    with pytest.raises(rotsim.InvalidInput, match=message):
        check_writable(name)
    assert os.listdir(tmp_path) == ["file"]


def test_the_longest_name_is_written(tmp_path):
    longest = "x" * (os.pathconf(tmp_path, "PC_NAME_MAX") - 3) + ".nc"
    assert write_atomically(tmp_path / longest, "whole").read_text() == "whole"
    with pytest.raises(rotsim.InvalidInput, match="too long"):
        check_writable(tmp_path / f"x{longest}")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_atomically("~/x.json", "{}")
    output_folder("~/results", "a.json")
    assert sorted(os.listdir(tmp_path)) == ["results", "x.json"]


def test_permissions_are_those_of_the_umask_or_of_the_file_before(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("")
    old.chmod(0o604)
    before = os.umask(0o027)
    try:
        write_atomically(new, b"")
        write_atomically(old, b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert stat.S_IMODE(old.stat().st_mode) == 0o604


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_protected_places_are_refused(tmp_path):
    protected = tmp_path / "protected"
    protected.write_text("mine")
    protected.chmod(0o400)
    with pytest.raises(rotsim.InvalidInput, match="write-protected"):
        write_atomically(protected, "x")
    tmp_path.chmod(0o500)
    with pytest.raises(rotsim.InvalidInput, match="not writable"):
        write_atomically(tmp_path / "new", "x")
    tmp_path.chmod(0o700)


def test_a_failing_disk_is_one_line_and_loses_nothing(walk, tmp_path, monkeypatch, capsys):
    target = tmp_path / "walk.nc"
    target.write_text("the earlier file")
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device\); what was there before is unchanged") as error:
        rotsim.save(walk, target)
    assert error.value.errno == errno.ENOSPC and calls
    assert main([*WALK, "--output", str(target)]) == 2
    printed = capsys.readouterr()
    assert "No space left" in printed.err and printed.err.count("\n") == 1
    assert "rotation" in printed.out  # the walk is shown all the same
    assert target.read_text() == "the earlier file"
    assert os.listdir(tmp_path) == ["walk.nc"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 KiB; only root may mount one, and not every root."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    ) if sys.platform == "linux" and os.geteuid() == 0 else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("no permission to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk(small_disk):
    """In a process of its own: HDF5 on a full disk takes the whole process along at its end."""
    earlier = small_disk / "walk.nc"
    earlier.write_text("the earlier file")
    for output in (earlier, small_disk / "new.nc"):
        command = [sys.executable, "-m", "rotsim", *WALK, "--output", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert "No space left on device" in done.stderr and done.stderr.count("\n") == 1
    assert earlier.read_text() == "the earlier file"
    assert os.listdir(small_disk) == ["walk.nc"]


def test_threads_saving_one_path_leave_one_whole_file(walk, tmp_path):
    path, failed = tmp_path / "shared.nc", []

    def save():
        try:
            for _ in range(4):
                rotsim.save(walk, path)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert rotsim.load(path).identical(walk)
    assert os.listdir(tmp_path) == ["shared.nc"]


WRITER = """
import sys, time
from pathlib import Path
from rotsim import files
with files._temporary(Path(sys.argv[1]), 0o666) as (temporary, file):
    file.write(b"half"); file.flush()
    print(temporary.name, flush=True)
    time.sleep(600)
"""


def test_temporary_files_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        left = writer.stdout.readline().strip()
        write_atomically(tmp_path / "other", "x")
        assert sorted(os.listdir(tmp_path)) == sorted([left, "other"])
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert sorted(os.listdir(tmp_path)) == sorted([left, "other"])
    write_atomically(tmp_path / "other", "x")
    assert os.listdir(tmp_path) == ["other"]


def test_a_file_taken_for_abandoned_before_its_lock_is_made_again(tmp_path, monkeypatch):
    """Between the making of a temporary file and its lock another process may remove it."""
    real, taken = files.fcntl.flock, []

    def late(file, operation):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        real(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", late)
    assert write_atomically(tmp_path / "x", "whole").read_text() == "whole"
    assert len(taken) == 1 and os.listdir(tmp_path) == ["x"]
