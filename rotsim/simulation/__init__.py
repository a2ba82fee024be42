"""The random walk: jitted kernel, its readable NumPy twin, and the public function that runs them."""

from rotsim.simulation.formats import Diverged as Diverged
from rotsim.simulation.interrupt import Interrupted as Interrupted
from rotsim.simulation.run import simulate as simulate
from rotsim.simulation.run import watched as watched
