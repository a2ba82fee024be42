"""Arms that are compared on seeds: each at the setting that a pilot finds best, as long as its questions need it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.harness.answers import Answer, Question, answer
from experiments.harness.claim import Examine, Finding
from experiments.harness.forest import answered, forests
from experiments.training.blocks import Outcomes, Trial, run_trials
from rotsim.tasks import Ledger

PILOT_FIRST = 1_000_000  # the pilot's seeds, far from those that are judged
UNSEEN = 2_000_000  # seeds for a question that was looked at before, with a plan that could not grow


@dataclass(frozen=True)
class Contest:
    """One network: its arms with their settings, and what is asked.

    Attributes
    ----------
    name : str
    arms : mapping of str to sequence of Trial
    questions : sequence of Question
        A family: it errs as a whole.
    most : int
        Seeds of an arm that can be afforded.
    pilot : int
        Seeds of every setting, which are not used again.
    first : int
        The first seed that is judged.
    """

    name: str
    arms: Mapping[str, Sequence[Trial]]
    questions: Sequence[Question]
    most: int
    pilot: int = 16
    first: int = 0

    def settle(self, processes: int, store: Ledger | None) -> tuple[list[Answer], dict[str, Any]]:
        """Train the pilot, choose, train what the questions need: the answers, and the numbers behind them."""
        store = store or Ledger()
        tried = self._pilot(processes, store)
        chosen = {arm: int(np.argmin([found["loss"].mean() for found in tried[arm]])) for arm in self.arms}
        trained: dict[str, Outcomes] = {}

        def learn(wanted: Mapping[str, int]) -> dict[str, Outcomes]:
            trials = [(self.arms[arm][chosen[arm]], self.first, seeds) for arm, seeds in wanted.items()]
            found = dict(zip(wanted, run_trials(trials, processes, store), strict=True))
            for arm, outcomes in found.items():  # a question may ask for fewer seeds than one before it
                if arm not in trained or len(outcomes["loss"]) > len(trained[arm]["loss"]):
                    trained[arm] = outcomes
            return found

        pilot = {arm: tried[arm][chosen[arm]] for arm in self.arms}
        step = min(next(iter(self.arms.values()))[0].problem.together, self.most)
        answers = answer(self.questions, learn, pilot, self.most, step)
        numbers = {
            "pilot's loss[setting]": {arm: [float(x["loss"].mean()) for x in tried[arm]] for arm in self.arms},
            "setting": {arm: index for arm, index in chosen.items() if len(self.arms[arm]) > 1},
            "at best[seed]": {
                arm: {what: [float(f"{x:.4g}") for x in values] for what, values in found.items() if what != "accuracy"}
                for arm, found in trained.items()
            },
            "accuracy": {arm: float(found["accuracy"].mean()) for arm, found in trained.items()},
        }
        return answers, numbers

    def _pilot(self, processes: int, store: Ledger) -> dict[str, list[Outcomes]]:
        wanted = [(trial, PILOT_FIRST, self.pilot) for trials in self.arms.values() for trial in trials]
        outcomes = iter(run_trials(wanted, processes, store))
        return {arm: [next(outcomes) for _ in trials] for arm, trials in self.arms.items()}


def of_contests(
    contests: Sequence[Contest], small: Sequence[Contest], message: str, columns: int = 2, processes: int = 2
) -> Examine:
    """The `examine` of a claim that all `contests` answer, or the `small` ones where it is to be quick."""

    def examine(quick: bool, store: Ledger | None = None) -> Finding:
        chosen = small if quick else contests
        found = {contest.name: contest.settle(1 if quick else processes, store) for contest in chosen}
        return answered(found, forests(found, message, columns))

    return examine
