"""Sweeps: a quantity over a grid of hyperparameters, in cells that any machine computes to the same bits."""

from rotsim.sweeps.measures import MEASURES
from rotsim.sweeps.run import Estimate, SweepInterrupted, sweep

__all__ = ["MEASURES", "Estimate", "SweepInterrupted", "sweep"]
