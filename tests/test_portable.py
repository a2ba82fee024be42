"""What is POSIX alone is never needed: calls without it, in a process of their own."""

import subprocess
import sys

import pytest

PROGRAM = """
import importlib.util, os, sys, threading
from pathlib import Path
import h5netcdf, numba, numpy, xarray
if importlib.util.find_spec("torch"):
    import torch

for module in ("fcntl", "resource", "pwd", "grp", "termios"):  # so that an import of it fails
    sys.modules[module] = None
absent = (
    "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC", "geteuid", "getuid", "fork", "register_at_fork", "sysconf",
    "sched_getaffinity", "fchmod", "fchown", "chown", "mkfifo", "mknod", "getloadavg", "pathconf", "killpg", "nice",
)
for name in absent:
    if hasattr(os, name):
        delattr(os, name)

import rotsim
from rotsim import files, memory

memory.Path = lambda path: Path("absent" + path)  # no /proc, no /sys
assert memory.available_memory() is None and files.fcntl is None
optimizer = rotsim.SGDM(0.1, 0.1)
run = dict(dim=8, neurons=2, steps=60, record_every=10, engine="numpy")
left = Path(".rotsim-0123456789abcdef.tmp")
left.write_text("of a writer that died")
os.utime(left, (0, 0))
walk = rotsim.simulate(optimizer, checkpoint="half.nc", checkpoint_seconds=1e-6, keep_state=True, **run)
again = rotsim.simulate(optimizer, resume=rotsim.load("half.nc"), **run)
assert (again.norm.values == walk.norm.values).all() and not left.exists()
threads = [threading.Thread(target=rotsim.save, args=(walk, "walk.nc")) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert rotsim.load("walk.nc").norm.equals(walk.norm)
for name in ("folder/", ""):
    try:
        rotsim.save(walk, name)
    except rotsim.InvalidInput:
        continue
    raise SystemExit(f"{name!r} was taken for a file")
assert sorted(os.listdir()) == ["half.nc", "walk.nc"]
if "torch" in sys.modules:
    from rotsim.measure import RotationalAdamW

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 4)
    turned = RotationalAdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    before = model.weight.detach().clone()
    model(torch.randn(2, 8)).square().sum().backward()  # of both signs: a mean alone would not turn them
    turned.step()
    assert torch.allclose(model.weight.norm(dim=1), before.norm(dim=1)) and (model.weight != before).any()
print("ported")
"""


@pytest.mark.slow
def test_without_what_is_posix_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "ported\n", done.stderr


def test_the_program_notices_what_is_missing(tmp_path):
    """Negative control: a call of what is gone ends the program, here without its imports."""
    gone, _, _ = PROGRAM.partition("import rotsim\n")
    broken = gone.replace("import h5netcdf, numba, numpy, xarray\n", "").replace("    import torch\n", "    pass\n")
    broken += "os.fork()\n"
    done = subprocess.run([sys.executable, "-c", broken], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode and "has no attribute 'fork'" in done.stderr
