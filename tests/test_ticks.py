"""Numbers on logarithmic axes."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import pytest

from rotsim.show.ticks import RATIO_TICKS, SIZE_TICKS, plain_ticks


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("choices", [RATIO_TICKS, SIZE_TICKS])
@pytest.mark.parametrize(("low", "high"), [(0.84, 2.6), (0.93, 1.07), (0.3, 3.1), (0.9, 30.0)])
def test_numbers_on_an_axis_keep_apart(which, choices, low, high):
    """On a panel of 80 by 70 points."""
    figure, panel = plt.subplots(figsize=(1.6, 1.3))
    panel.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axis = panel.xaxis if which == "x" else panel.yaxis
    plain_ticks(axis, choices)
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
    assert boxes and not any(one.overlaps(two) for one, two in itertools.pairwise(boxes))
    plt.close(figure)
