"""Predictions: closed forms generated from derivations/, and the equilibrium they give for a spec."""
