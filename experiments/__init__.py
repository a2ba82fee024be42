"""Experiments behind the claims: one module or folder each, run with `python -m`."""
