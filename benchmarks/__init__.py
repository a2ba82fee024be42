"""Timings against other programs, and mutants: small faults that the tests must notice."""
