"""How smoothly the page of `rotsim explore` runs: frames per second in headless Chromium.

    python -m benchmarks.frames [--steps-a-frame 4] [--neurons 64] [--dim 64] [--seconds 5] [--all]

The optimizers that the page shows at first walk; with `--all`, all of them. Frames are counted by the page itself. The
time of a frame is what its main thread works, steps and drawing together. A browser shows 60 frames a second, so that
each has 16.7 ms.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from rotsim.page.assemble import page

MEASURED = """(seconds) => new Promise((resolve) => {
  const work = [];
  const frame = view.frame.bind(view);
  view.frame = (now) => {
    const begun = performance.now();
    frame(now);
    work.push(performance.now() - begun);
  };
  view.setRunning(true);
  setTimeout(() => {
    work.length = 0;
    const [frames, steps, begun] = [view.frames, view.lab.done, performance.now()];
    setTimeout(() => {
      const passed = (performance.now() - begun) / 1000;
      work.sort((a, b) => a - b);
      resolve({
        optimizers: view.shown.length, frames: (view.frames - frames) / passed,
        steps: (view.lab.done - steps) / (view.frames - frames),
        median: work[work.length >> 1], most: work[Math.floor(0.95 * work.length)],
      });
    }, 1000 * seconds);
  }, 1000);
})"""


def main() -> None:
    """Print frames per second, steps per frame and the time of a frame."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(prog="python -m benchmarks.frames", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps-a-frame", type=int, default=4, choices=(1, 2, 4, 8, 16, 32, 64))
    parser.add_argument("--neurons", type=int, default=64)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--all", action="store_true", help="show all optimizers")
    asked = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = Path(folder) / "page.html"
        file.write_text(page(), encoding="utf-8")
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = opened.new_page(viewport={"width": 1280, "height": 720})
        tab.goto(
            f"{file.as_uri()}#neurons={asked.neurons}&dim={asked.dim}&steps=50000{'&hidden=' if asked.all else ''}"
        )
        tab.evaluate("(speed) => (view.state.speed = SPEEDS.indexOf(speed))", asked.steps_a_frame)
        tab.wait_for_function("view.lab.answers >= view.shown.length", timeout=120_000)
        found = tab.evaluate(MEASURED, asked.seconds)
        opened.close()
    print(
        f"{found['optimizers']} optimizers: {found['frames']:.0f} frames a second, {found['steps']:.1f} steps a frame; "
        f"a frame works {found['median']:.1f} ms, 95 % of them at most {found['most']:.1f} ms"
    )


if __name__ == "__main__":
    main()
