"""How networks are trained here: one loop, one set of optimizers, and many seeds of a network at once."""
