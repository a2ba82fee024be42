"""The page's numeric core in Node.js: what a test asks is a JavaScript function of one argument."""

import json
import shutil
import subprocess
from functools import cache

import pytest

from rotsim.page.numerics import script


@cache
def node():
    """The path of Node.js, the system's or that which playwright brings; None without either."""
    found = shutil.which("node")
    if found is None:
        try:
            from playwright._impl._driver import compute_driver_executable
        except ImportError:
            return None
        found = compute_driver_executable()[0]
    return str(found)


needs_node = pytest.mark.skipif(node() is None, reason="no Node.js here to run the page's numbers in")


def answer(function, given, core=None):
    """What a function, given as its source, returns for `given` beside the page's numeric core."""
    program = f"{core or _core()}\nprocess.stdout.write(JSON.stringify(({function})({json.dumps(given)})));\n"
    done = subprocess.run([node(), "-"], input=program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@cache
def _core():
    return script()
