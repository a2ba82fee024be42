"""Sweeps on a Dask cluster: the same bits, a worker that is killed, a scheduler that is started anew."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

import rotsim
from rotsim.cli import main

distributed = pytest.importorskip("distributed", reason='the cluster extra is not installed: pip install ".[cluster]"')
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Dask's own warnings, in its threads


def slow(spec, k=0.0):
    time.sleep(0.2)
    return spec.lr * k


@pytest.fixture
def cluster():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        distributed.Client(local) as client,
    ):
        yield client


def test_the_same_bits_as_here(cluster):
    arguments = dict(measure="simulate", weight_decay=0.1, dim=16, neurons=8, steps=2000)
    over = {"lr": [0.1, 0.2], "seed": [0, 1, 2]}
    there = rotsim.sweep(rotsim.SGDM, over, executor=cluster, **arguments)
    assert there.drop_attrs().identical(rotsim.sweep(rotsim.SGDM, over, workers=1, **arguments).drop_attrs())


def test_a_worker_is_killed(cluster):
    killed = []

    def kill_one(done, cells):
        if done >= 2 and not killed:
            killed.append(next(iter(cluster.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    found = rotsim.sweep(rotsim.SGDM(0.1, 0.1), {"k": range(20)}, slow, executor=cluster, progress=kill_one)
    assert killed
    np.testing.assert_array_equal(found["value"].values, 0.1 * np.arange(20))


def test_a_scheduler_is_started_anew():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"

    def started(*command):
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([sys.executable, "-m", *command, "--no-dashboard"], stdout=quiet, stderr=quiet)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        return process

    def scheduler():
        return started("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port))

    def worker():
        return started("distributed.cli.dask_worker", address, "--nworkers", "1", "--nthreads", "1", "--no-nanny")

    with ExitStack() as stack:
        first = scheduler()
        worker()
        client = distributed.Client(address, timeout=60)
        stack.callback(client.close)
        client.wait_for_workers(1, timeout=60)
        restarted = threading.Event()

        def restart(done, cells):
            if done >= 4 and not restarted.is_set():
                restarted.set()
                first.kill()
                first.wait()
                scheduler()
                worker()

        found = rotsim.sweep(rotsim.SGDM(0.1, 0.1), {"k": range(24)}, slow, executor=client, progress=restart)
    assert restarted.is_set()
    np.testing.assert_array_equal(found["value"].values, 0.1 * np.arange(24))


def test_a_scheduler_that_does_not_answer_is_one_line(capsys):
    rates = ("--lr", "0.01:1:3", "--weight-decay", "0.01,0.1")
    assert main(["sweep", "sgdm", *rates, "--dask", "tcp://127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "no scheduler answers" in error and error.count("\n") == 1
