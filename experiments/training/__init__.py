"""How networks are trained here: one loop, one set of optimizers, and many short runs compared pairwise."""
