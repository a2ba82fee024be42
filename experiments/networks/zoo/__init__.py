"""Small networks and training loops of many kinds, for `experiments.networks.heldout`.

Each is a function that returns model, optimizer and a function that takes one training step; the caller seeds.
"""

from experiments.networks.zoo import later, practice, sequences, vision
from experiments.networks.zoo.parts import NETWORKS

__all__ = ["NETWORKS", "later", "practice", "sequences", "vision"]
