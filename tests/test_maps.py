"""Maps: what is shaded, against the numbers that it stands for, and the command."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import rotsim
from rotsim.cli import main
from rotsim.errors import InvalidInput
from rotsim.sweeps.map import plot_sweep
from rotsim.sweeps.regimes import LOST_DECAY, regimes

OVER = {"lr": np.geomspace(1e-3, 1.0, 4), "weight_decay": np.geomspace(1e-3, 1.0, 4)}


@pytest.mark.parametrize("name, last_kept", [("float32", 2.0**-24), ("bfloat16", 2.0**-8)])
def test_a_smaller_decay_changes_no_weight_of_the_format(name, last_kept):
    torch = pytest.importorskip("torch")
    weights = torch.linspace(0.5, 2.0, 1001, dtype=getattr(torch, name))
    assert (weights * (1 - 0.99 * LOST_DECAY[name]) == weights).all()
    assert (weights * (1 - 1.01 * last_kept) != weights).all()  # twice as much changes every one


def test_regimes_are_what_the_functions_say():
    memory, betas = rotsim.Autocorrelated(0.3), (0.8, 0.9)
    found = regimes(rotsim.Lion, OVER, dim=64, gradient=memory, steps=500, beta1=betas[0], beta2=betas[1])
    at = found.isel(lr=1, weight_decay=2)
    opt = rotsim.Lion(float(at["lr"]), float(at["weight_decay"]), betas)
    there, plain = rotsim.equilibrium(opt, 64, memory), rotsim.equilibrium(opt, 64)
    paper = rotsim.equilibrium(opt, 64, method="leading")
    assert at["decay"] == opt.lr * opt.weight_decay
    assert at["transient"] == pytest.approx(np.exp(-500 / there.relaxation_steps), rel=1e-12)
    assert at["departure"] == pytest.approx(abs(there.rotation / plain.rotation - 1), rel=1e-12)
    errors = abs(paper.norm / plain.norm - 1), abs(paper.rotation / plain.rotation - 1)
    assert at["leading_error"] == pytest.approx(max(errors), rel=1e-12)
    assert at["departure"] > 1e-3 and at["leading_error"] > 1e-5  # controls: neither is 0 for want of a difference


def test_the_rest_of_a_transient_is_that_of_a_course():
    opt = rotsim.SGDM(0.1, 5e-4, momentum=0.5)  # gentle: while the momentum fills, little is missed
    settled = rotsim.equilibrium(opt, 256).norm
    steps = round(2 * rotsim.equilibrium(opt, 256).relaxation_steps)
    course = rotsim.predict(opt, 256, steps=steps, initial_norm=1.02 * settled, record_every=1)
    left = (course["norm"].values[0, -1] ** 2 - settled**2) / (0.0404 * settled**2)
    found = regimes(opt, {"lr": [0.1]}, dim=256, steps=steps)
    assert found["transient"].item() == pytest.approx(left, rel=0.05)
    assert found["transient"].item() == pytest.approx(np.exp(-2), rel=0.01)


def test_decay_inside_the_gradient_is_not_lost_by_itself():
    rates = {"lr": [1e-6, 1e-5], "weight_decay": [1e-3, 1e-2]}
    assert "decay" in regimes(rotsim.Lion, rates) and "decay" not in regimes(rotsim.SGDM, rates)


def test_a_map_has_a_panel_for_each_optimizer_and_marks_points():
    figure = rotsim.plot_map([rotsim.SGDM, rotsim.Lion(0.1, 0.1)], OVER, steps=500, points=[(0.1, 0.1)], dim=64)
    panels = figure.axes
    assert [ax.get_title() for ax in panels] == ["SGDM", "Lion"]
    assert all(any(line.get_xydata().tolist() == [[0.1, 0.1]] for line in ax.lines) for ax in panels)
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert "run too short: more than 5% of the start is left" in texts
    assert "below: float32 weights lose the decay" not in texts  # every decay of this map is larger


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"over": {"lr": [1.0, 2.0]}}, "must have two names"),
        ({"over": OVER, "points": [(1.0,)]}, "must be two numbers"),
        ({"over": OVER, "quantity": "speed"}, "`quantity` must be"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        rotsim.plot_map(rotsim.SGDM, **arguments)


def test_the_commands(tmp_path, capsys):
    ranges = ["--lr", "0.01:1:3", "--weight-decay", "0.01,0.1"]
    assert (
        main(["sweep", "sgdm", *ranges, "--output", str(tmp_path / "s.nc"), "--store", str(tmp_path / "s.zarr")]) == 0
    )
    assert "equilibrium, 6 cells: lr 3 x weight_decay 2" in capsys.readouterr().out
    assert main(["sweep", "sgdm", *ranges, "--store", str(tmp_path / "s.zarr"), "--dry-run"]) == 0
    assert "6 cells, 6 of them finished" in capsys.readouterr().out
    kept = ["--output", str(tmp_path / "r.nc"), "--resume"]
    assert main(["sweep", "sgdm", *ranges, *kept, "--figure", str(tmp_path / "r.png")]) == 0
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "r.zarr").is_dir()
    capsys.readouterr()
    assert main(["sweep", "sgdm", *ranges, *kept, "--dry-run"]) == 0
    estimate = capsys.readouterr().out
    assert "6 cells, 6 of them finished" in estimate and "MiB of memory" in estimate
    axes = ["--x", "lr=0.01:1:4", "--y", "weight_decay=0.01:1:4"]
    assert main(["map", "sgdm", *axes, "--point", "0.1,0.1", "--output", str(tmp_path / "m.png")]) == 0
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    for wrong, message in {
        ("sweep", "sgdm", "--lr", "0:1:3", "--weight-decay", "1"): "use lin:",
        ("sweep", "sgdm", "--lr", "1:2:3:4", "--weight-decay", "1"): "`--lr` takes",
        ("sweep", "sgdm", "--lr", "1"): "needs values for weight_decay",
        ("map", "sgdm", "--x", "lr"): "NAME=RANGE",
        ("sweep", "sgdm", *ranges, "--resume"): "`--resume` needs `--output` or `--store`",
    }.items():
        assert main(list(wrong)) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_rows_are_those_of_the_matrices_of_a_map(tmp_path, capsys):
    over = {"lr": [0.01, 0.02], "weight_decay": [0.05, 0.1]}
    found = regimes(rotsim.Muon, over, dim=32, rows=16)
    assert found["norm"].values[1, 1] == rotsim.equilibrium(rotsim.Muon(0.02, 0.1), 32, rows=16).norm
    axes = ["--x", "lr=0.01:0.1:3", "--y", "weight_decay=0.01:0.1:3", "--dim", "32", "--rows", "16"]
    picture = str(tmp_path / "m.png")
    assert main(["map", "adamw", "muon", *axes, "--output", picture]) == 0
    assert main(["map", "adamw", *axes, "--output", picture]) == 2
    assert "`rows` is for an optimizer that acts on matrices" in capsys.readouterr().err
    rates = ["--lr", "0.01:0.1:2", "--weight-decay", "0.1", "--dim", "32"]
    assert main(["sweep", "muon", *rates, "--rows", "16,32", "--adjust-lr-fn", "spectral", "--ns-steps", "5,6"]) == 0
    assert "lr 2 x ns_steps 2 x rows 2" in capsys.readouterr().out


def test_a_sweep_is_drawn_over_one_two_or_three_names():
    line = rotsim.sweep(rotsim.SGDM, {"lr": [0.1, 0.2, 0.4]}, weight_decay=0.1)
    (curve,) = plot_sweep(line, "norm").axes[0].lines
    np.testing.assert_array_equal(curve.get_ydata(), line["norm"].values)
    three = rotsim.sweep(rotsim.SGDM, OVER | {"momentum": [0.0, 0.9]}, "leading")
    assert [ax.get_title() for ax in plot_sweep(three).axes] == ["momentum 0", "momentum 0.9"]
    with pytest.raises(InvalidInput, match="one to three names that are numbers"):
        plot_sweep(rotsim.sweep(rotsim.SGDM, {"of": ["leading"]}, "error", lr=0.1, weight_decay=0.1), "norm_error")
    with pytest.raises(InvalidInput, match="`quantity` must be"):
        plot_sweep(line, "speed")


def sparse_figure():
    """Contours of rotation between three values of a decay; three cells at a large lr have no result."""
    over = {"lr": np.geomspace(1e-3, 10.0, 10), "weight_decay": [1e-4, 1e-2, 1.0], "momentum": [0.0, 0.9]}
    found = rotsim.sweep(rotsim.SGDM, over)
    return found, plot_sweep(found)


def test_contours_between_sparse_cells_are_where_the_theory_has_them():
    _, figure = sparse_figure()
    ax = figure.axes[0]
    (lines,) = [each for each in ax.collections if hasattr(each, "allsegs")]
    (part,) = lines.allsegs[lines.levels.tolist().index(np.log(0.03))]
    points = ax.transData.inverted().transform(lines.get_transform().transform(part))
    assert len(points) > 10
    for lr, weight_decay in points:
        assert rotsim.equilibrium(rotsim.SGDM(lr, weight_decay, momentum=0.0)).rotation == pytest.approx(0.03, rel=0.02)


def test_a_sweeps_figure_says_of_what_it_is_and_crosses_cells_without_a_result():
    found, figure = sparse_figure()
    assert figure.get_suptitle() == "SGDM, equilibrium: rotation, rad per step\ndim 1024"
    crosses = [line.get_xydata() for ax in figure.axes for line in ax.lines if line.get_marker() == "x"]
    assert sum(map(len, crosses)) == (found["reason"].values != "").sum() == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no result"]
    line = rotsim.sweep(rotsim.SGDM(0.1, 0.1, momentum=0.5), {"lr": [0.1, 1.0, 100.0]}, dim=64)
    figure = plot_sweep(line, "norm")
    title = figure.get_suptitle()
    assert title.startswith("SGDM, equilibrium: norm") and "dim 64" in title and "momentum 0.5" in title
    assert figure.axes[0].lines[-1].get_xdata().tolist() == [100.0] and figure.legends
    wrapped = rotsim.sweep(rotsim.Cautious(rotsim.AdamW(1e-3, 0.1)), {"lr": [1e-3, 1e-2], "beta2": [0.9, 0.95]})
    title = plot_sweep(wrapped).get_suptitle()
    assert title.startswith("Cautious AdamW") and "beta1 0.9" in title and "beta2" not in title and "lr" not in title
    wide = rotsim.sweep(rotsim.SGDM, {"lr": [0.1, 0.2], "weight_decay": [0.1]})
    assert "weight decay 0.1" in plot_sweep(wide).get_suptitle()


def test_numbers_of_contours_are_whole_and_apart():
    _, sparse = sparse_figure()
    rates = {"lr": np.geomspace(1e-5, 0.1, 21), "weight_decay": np.geomspace(1e-4, 10, 21)}
    for figure in (sparse, rotsim.plot_map([rotsim.AdamW, rotsim.Lion], rates, steps=10_000, points=[(3e-4, 0.1)])):
        figure.draw_without_rendering()
        for ax in figure.axes:
            panel, boxes = ax.get_window_extent(), [text.get_window_extent() for text in ax.texts]
            assert len(boxes) >= 5
            assert all((box.min >= panel.min).all() and (box.max <= panel.max).all() for box in boxes)
            assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_contours_of_what_may_be_negative_are_drawn_too():
    found = rotsim.sweep(rotsim.SGDM, OVER, "error", dim=64)
    assert (found["norm_error"].values < 0).any()
    assert plot_sweep(found, "norm_error").axes[0].texts


def test_a_marked_point_beyond_the_grid_has_room():
    """A panel reaches to it, and contours stay where their values are; without a mark it ends with the grid."""
    over = {"lr": [1e-3, 1e-2], "weight_decay": [0.01, 0.1]}
    for points, right in (([(0.1, 0.05)], 0.1), ([], 1e-2)):
        figure = rotsim.plot_map(rotsim.SGDM, over, dim=64, points=points, quantity="norm")
        (ax,) = figure.axes
        assert ax.get_xlim() == pytest.approx((1e-3, right)) and ax.get_ylim() == pytest.approx((0.01, 0.1))
        (part,) = ax.collections[-1].get_paths()[:1]
        drawn = ax.transData.inverted().transform(ax.collections[-1].get_transform().transform(part.vertices))
        assert drawn[:, 0].min() > 0.999e-3 and drawn[:, 0].max() < 1.001e-2
        plt.close(figure)
