"""What a claim of answered questions shows: every effect with its interval beside its margin, and the finding."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness.answers import Answer
from experiments.harness.claim import Finding
from experiments.harness.panels import finish
from rotsim.show.plotting import style

_COLORS = {"effect": "C1", "equivalent": "C0", "undecided": "0.5"}


def forest(ax: Axes, answers: list[Answer], title: str = "") -> None:
    """Effect and interval of every answer in %, a grey bar over the margin, and the verdict in colour."""
    for row, answer in enumerate(answers):
        color = _COLORS[answer.kind]
        low, effect, high = 100 * np.array([answer.low, answer.effect, answer.high])
        off = 100 * np.array([1 / (1 + answer.margin) - 1, answer.margin])
        ax.barh(row, off[1] - off[0], left=off[0], color="0.9", height=0.8, zorder=0)
        ax.errorbar(effect, row, xerr=[[effect - low], [high - effect]], color=color, marker="D", capsize=4)
        ax.annotate(answer.kind, (effect, row), (0, 7), textcoords="offset points", ha="center", color=color, size=9)
    ax.axvline(0, color="k", linewidth=1)
    labels = [answer.statement.partition(": ")[2].replace(", ", ",\n", 1) for answer in answers]
    ax.set_yticks(range(len(answers)), labels, fontsize=9)
    ax.set(ylim=(len(answers) - 0.4, -0.7), xlabel="effect, %", title=title)
    ax.grid(axis="y", visible=False)


def forests(found: Mapping[str, tuple[list[Answer], dict[str, Any]]], message: str, columns: int = 2) -> Figure:
    """A figure with the answers of every network."""
    lines = -(-len(found) // columns)
    rows = max(len(answers) for answers, _ in found.values())
    with style():
        size = (7 * columns, lines * (1.4 + 0.62 * rows) + 1)
        figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
        for ax in axes.flat[len(found) :]:
            ax.set_visible(False)
        for ax, (name, (answers, _)) in zip(axes.flat, found.items(), strict=False):
            forest(ax, answers, name)
    return finish(figure, message)


def answered(found: Mapping[str, tuple[list[Answer], dict[str, Any]]], figure: Figure) -> Finding:
    """The finding of all networks: their answers as checks, the numbers behind them, and the largest effects."""
    answers = [answer for own, _ in found.values() for answer in own]
    counts = {kind: sum(answer.kind == kind for answer in answers) for kind in _COLORS}
    largest = max(answers, key=lambda answer: abs(answer.effect))
    result = (
        f"{', '.join(f'{number} {kind}' for kind, number in counts.items() if number)} of {len(answers)}; largest: "
        f"{largest.effect:+.1%} [{largest.low:+.1%}, {largest.high:+.1%}] ({largest.statement})"
    )
    checks = [answer.check() for answer in answers]
    numbers = {name: own for name, (_, own) in found.items()}
    return Finding(checks, figure, numbers, result, answers=[answer.to_dict() for answer in answers])
