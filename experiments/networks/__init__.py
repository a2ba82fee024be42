"""Training small real networks with the recorder attached: `python -m experiments.networks`."""
