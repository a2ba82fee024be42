"""Do the tests notice a fault? A seeded sample of small faults, each put into a copy of the tree and tested.

    python -m benchmarks.mutants                                   # 120 mutants, about half an hour on one core
    python -m benchmarks.mutants --module rotsim/statistics.py     # of one module
    python -m benchmarks.mutants --resume                          # goes on, and tests what survived once more
    python -m benchmarks.mutants --resume --seconds 30             # by more tests
    python -m benchmarks.mutants --table                           # shows the committed result

Mutants are drawn from the modules in proportion to their lines of code. Each is tested by the tests that call the
function it is in, quick ones that call little else first, within the seconds allowed: the share noticed is a lower
bound. A mutant that takes far longer than the tests it is given counts as noticed. `equivalent_mutants.toml` holds
those that change nothing a test could see, with the reasons.

Neither mutmut nor cosmic-ray is used. They take one test command for all mutants and import everything anew for each,
which is most of the time here. Neither draws a seeded sample. Here every test runs in a fork of a process that
has the libraries imported already.
"""

import contextlib
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from benchmarks.mutations import Mutation, code_lines, mutated, mutations

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "mutants.json"
CALIBRATION = Path(tempfile.gettempdir()) / "rotsim-tests.json"
EQUIVALENT = HERE / "equivalent_mutants.toml"
MODULES = [
    *("comparison", "statistics", "windows", "diagnosis", "evidence", "findings", "facts", "quarters", "balance"),
    *("overview", "forecast", "theory/prediction", "cli/*"),
    *(f"measure/{name}" for name in (
        "recorder", "recorded", "running", "assembly", "sample", "windows", "scales", "coordinates", "selection",
        "spec", "steps", "neurons",
    )),
]  # fmt: skip
#: Those that are quick to start and to run first.
TESTS = [f"tests/test_{name}.py" for name in (
    "statistics", "comparison", "thresholds", "evidence", "recorder_parts", "cli_values", "overview", "forecast",
    "prediction_values", "scales", "recorder", "recorder_additions", "recorder_adversary", "recorder_layers",
    "recorder_specs", "recorder_resume", "verdicts", "diagnosis", "cli", "terminal", "conversion", "logs",
    "checkpoints", "animation", "sweeps", "maps", "tasks",
)]  # fmt: skip
LIBRARIES = [
    "pytest",
    "torch",
    "numba",
    "xarray",
    "h5netcdf",
    "matplotlib.pyplot",
    "scipy.optimize",
    "scipy.stats",
    "sympy",
]
QUICKLY = [
    "-x",
    "-n0",
    "-q",
    *(f"-pno:{slow}" for slow in ("cacheprovider", "hypothesispytest", "benchmark")),
]  # to start
SECONDS = 6.0  # of tests per mutant, unless told
SLOWDOWN = 4.0  # times as long as the unchanged tests take, and
IDLE_SECONDS = 20.0  # besides, is far longer
WAITING_FACTOR = 20.0  # times the processor time that a mutant may take is how long it may wait for a processor


# --- tests in a fork ------------------------------------------------------------------------------


class _Watch:
    """A pytest plugin: the first test that fails; or what each test calls and takes, of those that are not `known`."""

    def __init__(self, tree: Path, known: dict[str, Any] | None) -> None:
        self.package, self.known, self.calls = str(tree / "rotsim") + os.sep, known or {}, known is not None
        self.failed: str | None = None
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = f"import of {report.nodeid}"

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.tests.update({item.nodeid: self.known[item.nodeid] for item in items if item.nodeid in self.known})
        items[:] = [item for item in items if item.nodeid not in self.known]

    def pytest_runtest_logstart(self) -> None:
        if self.calls:
            self.codes: set[Any] = set()
            self.start = time.process_time()
            sys.setprofile(lambda frame, event, _: self.codes.add(frame.f_code) if event == "call" else None)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if self.calls:
            sys.setprofile(None)
            called = {
                f"rotsim/{c.co_filename.removeprefix(self.package)} {c.co_qualname.replace('.<locals>', '')}"
                for c in self.codes
                if c.co_filename.startswith(self.package)
            }
            self.tests[nodeid] = {"seconds": round(time.process_time() - self.start, 3), "calls": sorted(called)}


def _forked(
    tree: Path, tests: list[str], seconds: float, known: dict[str, Any] | None = None
) -> tuple[str | None, dict[str, Any]]:
    """Run tests of a tree: the first that fails (None if all pass), and what `_Watch` saw."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(receiver)
        limit = int(seconds + time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        log = os.open(tree / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        for name in [name for name in sys.modules if name.split(".")[0] in ("benchmarks", "rotsim")]:
            del sys.modules[name]
        sys.path[:] = [str(tree), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
        import pytest

        watch = _Watch(tree, known)
        code = pytest.main([*tests, *QUICKLY], plugins=[watch])
        failed = None if code in (0, 5 * watch.calls) else watch.failed or f"pytest's exit code {int(code)}"
        with os.fdopen(sender, "w") as pipe:
            json.dump([failed, watch.tests], pipe)
        os._exit(0)
    os.close(sender)
    deadline, sent = time.monotonic() + WAITING_FACTOR * seconds, b""
    os.set_blocking(receiver, False)
    while time.monotonic() < deadline:
        try:
            part = os.read(receiver, 1 << 16)
        except BlockingIOError:
            time.sleep(0.05)
            continue
        if not part:
            break
        sent += part
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(receiver)
    return tuple(json.loads(sent)) if sent else ("out of time, or died", {})  # type: ignore[return-value]


# --- which tests ----------------------------------------------------------------------------------


def _calibrated(tree: Path, file: Path) -> dict[str, dict[str, Any]]:
    """Seconds and called functions of every test, from runs of the unchanged tree, kept in `file`.

    Of a test file that changed, only tests of a new name are run again.
    """
    known = json.loads(file.read_text()) if file.exists() else {}
    for path in TESTS:
        digest = sha256((tree / path).read_bytes()).hexdigest()
        if known.get(path, {}).get("digest") != digest:
            click.echo(f"calibrating {path}", err=True)
            failed, tests = _forked(tree, [path], 1000.0, known.get(path, {}).get("tests", {}))
            if failed is not None:
                raise click.ClickException(f"{failed} fails on the unchanged tree; see {tree / 'pytest.log'}")
            known[path] = {"digest": digest, "tests": tests}
            file.write_text(json.dumps(known))
    return {test: facts for path in TESTS for test, facts in known[path]["tests"].items()}


def _tests_of(mutation: Mutation, tests: dict[str, dict[str, Any]], most: float) -> tuple[list[str], float]:
    """Tests that call the function, else a method of the class, else anything of the module; their seconds, at most."""
    function = mutation.function
    for whole in ("",) if function == "<module>" else (function, function.split(".")[0], ""):
        start = f"{mutation.module} {whole}"
        found = [
            test
            for test, facts in tests.items()
            if any(call == start or call.startswith(f"{start}." if whole else start) for call in facts["calls"])
        ]
        if found:
            break
    chosen, seconds = [], 0.0
    for test in sorted(found, key=lambda test: len(tests[test]["calls"]) * tests[test]["seconds"]):
        if not chosen or seconds + tests[test]["seconds"] <= most:
            chosen.append(test)
            seconds += tests[test]["seconds"]
    return chosen, seconds


# --- the sample -----------------------------------------------------------------------------------


def modules() -> list[str]:
    """The files under test."""
    return [str(path.relative_to(ROOT)) for name in MODULES for path in sorted((ROOT / "rotsim").glob(f"{name}.py"))]


def sample(chosen: list[str], count: int, seed: int) -> list[Mutation]:
    """`count` mutations, by module in proportion to lines of code.

    A mutation's place in the draw is a hash of the seed and its name, so that a change of the source moves few.
    """
    sources = {module: (ROOT / module).read_text() for module in chosen}
    lines = {module: code_lines(text) for module, text in sources.items()}
    share = {module: count * lines[module] / sum(lines.values()) for module in chosen}
    quota = {module: int(share[module]) for module in chosen}
    for module in sorted(chosen, key=lambda module: quota[module] - share[module])[: count - sum(quota.values())]:
        quota[module] += 1
    drawn = []
    for module, text in sources.items():
        ranked = sorted(mutations(module, text), key=lambda m: sha256(f"{seed} {m.name}".encode()).digest())
        drawn += ranked[: quota[module]]
    return drawn


def equivalent() -> dict[str, str]:
    """Reasons of the mutants that change nothing that a test could see, by name."""
    return tomllib.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else {}


def table(result: dict[str, Any]) -> str:
    """Shares noticed by module, survivors, and reasons of equivalent mutants."""
    reasons, mutants = equivalent(), result["mutants"]
    by_module, killed, excused = Counter(), Counter(), Counter()
    for mutant in mutants:
        module = mutant["name"].split()[0]
        by_module[module] += 1
        killed[module] += mutant["noticed_by"] is not None
        excused[module] += mutant["noticed_by"] is None and mutant["name"] in reasons
    width = max(map(len, by_module))
    lines = [f"{'module':{width}}  mutants  noticed  equivalent"]
    lines += [f"{m:{width}}  {by_module[m]:7}  {killed[m]:7}  {excused[m]:10}" for m in by_module]
    every, noticed, same = sum(by_module.values()), sum(killed.values()), sum(excused.values())
    lines += [f"{'all':{width}}  {every:7}  {noticed:7}  {same:10}", ""]
    lines += [f"{every} of {result['count']} drawn with seed {result['seed']} are tested"]
    lines += [f"noticed: {noticed / every:.1%}; of those that change something: {noticed / (every - same):.1%}"]
    for mutant in mutants:
        if mutant["noticed_by"] is None:
            why = reasons.get(mutant["name"])
            lines += [f"{'equivalent' if why else 'SURVIVED'}  {mutant['name']}", *([f"    {why}"] if why else [])]
    return "\n".join(lines)


def run(
    chosen: list[Mutation],
    done: dict[str, dict[str, Any]],
    calibration: Path,
    most: float,
    save: Callable[[list], None],
) -> None:
    """Test those that are not `done`, or survived, each by at most so many seconds of tests."""
    for library in LIBRARIES:
        __import__(library)
    gc.freeze()  # nothing of that is looked through again by every fork
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".hypothesis", ".*_cache"))
        tests = _calibrated(tree, calibration)
        for mutation in chosen:
            before = done.get(mutation.name)
            if before is None or (before["noticed_by"] is None and mutation.name not in equivalent()):
                given, seconds = _tests_of(mutation, tests, most)
                path = tree / mutation.module
                original, stamp = path.read_text(), path.stat()
                path.write_text(mutated(mutation, original))
                noticed = None
                for file in TESTS:
                    if noticed is None and (there := [test for test in given if test.startswith(f"{file}::")]):
                        noticed = _forked(tree, there, SLOWDOWN * seconds + IDLE_SECONDS)[0]
                path.write_text(original)
                os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # compiled files stay valid
                done[mutation.name] = {"name": mutation.name, "noticed_by": noticed, "tests": len(given)}
                click.echo(f"{'noticed' if noticed else 'SURVIVED'}  {mutation.name}  {noticed or ''}", err=True)
                save([done[m.name] for m in chosen if m.name in done])


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--count", default=120, show_default=True)
@click.option("--module", "chosen", multiple=True, help="Only these files, e.g. rotsim/statistics.py.")
@click.option("--resume", is_flag=True, help="Keep what the result says was noticed.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULT)
@click.option("--calibration", type=click.Path(path_type=Path), default=CALIBRATION, help="What each test calls.")
@click.option("--seconds", default=SECONDS, show_default=True, help="Of tests per mutant.")
@click.option("--table", "only_table", is_flag=True)
@click.option("--list", "only_list", is_flag=True, help="Show the sample and test nothing.")
def main(
    seed: int, count: int, chosen: tuple[str, ...], resume: bool, output: Path, calibration: Path, seconds: float,
    only_table: bool, only_list: bool,
) -> None:  # fmt: skip
    """Test a seeded sample of mutants."""
    if not only_table:
        drawn = sample(modules(), count, seed)
        drawn = [m for m in drawn if not chosen or m.module in chosen]
        if only_list:
            click.echo("\n".join(m.name for m in drawn))
            return
        done = {m["name"]: m for m in json.loads(output.read_text())["mutants"]} if resume and output.exists() else {}

        def save(mutants: list[dict[str, Any]]) -> None:
            output.write_text(json.dumps({"seed": seed, "count": count, "mutants": mutants}, indent=1) + "\n")

        run(drawn, done, calibration, seconds, save)
    click.echo(table(json.loads(output.read_text())))


if __name__ == "__main__":
    main()
