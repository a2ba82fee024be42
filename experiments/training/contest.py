"""Arms that are compared, each at the setting that a pilot finds best; the pilot's seeds are then not used again."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.training.blocks import Outcomes, Trial, run_trials
from rotsim.tasks import Ledger

PILOT_FIRST = 1_000_000  # the pilot's seeds, far from those that are judged


class Contest:
    """Trials of the same problem, by arm and setting.

    Attributes
    ----------
    pilot : dict of str to Outcomes
        Of every arm's best setting.
    settings : dict of str to list of float
        Mean loss of every setting on the pilot's seeds.
    best : dict of str to Trial
    found : dict of str to Outcomes
        What has been learned of the best settings so far, from seed 0 on.
    """

    def __init__(
        self, arms: Mapping[str, Sequence[Trial]], pilot_seeds: int, processes: int, store: Ledger | None
    ) -> None:
        self._processes, self._store = processes, store or Ledger()
        wanted = [(trial, PILOT_FIRST, pilot_seeds) for trials in arms.values() for trial in trials]
        outcomes = iter(run_trials(wanted, processes, self._store))
        self.pilot: dict[str, Outcomes] = {}
        self.settings: dict[str, list[float]] = {}
        self.best: dict[str, Trial] = {}
        for arm, trials in arms.items():
            tried = [next(outcomes) for _ in trials]
            self.settings[arm] = [float(x["loss"].mean()) for x in tried]
            chosen = int(np.argmin(self.settings[arm]))
            self.best[arm], self.pilot[arm] = trials[chosen], tried[chosen]
        self.found: dict[str, Outcomes] = {}

    def learn(self, wanted: Mapping[str, int]) -> dict[str, Outcomes]:
        """Outcomes of this many seeds of each arm's best setting, from seed 0 on."""
        trained = run_trials(
            [(self.best[arm], 0, seeds) for arm, seeds in wanted.items()], self._processes, self._store
        )
        outcomes = dict(zip(wanted, trained, strict=True))
        self.found |= outcomes
        return outcomes
