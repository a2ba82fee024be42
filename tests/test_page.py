"""`rotsim explore`: the file that it writes, what its settings mean, and a new optimizer on the page."""

import html.parser
import re
import sys

import numpy as np
import pytest

import rotsim
from rotsim import closed_forms
from rotsim.cli import exploring, main
from rotsim.errors import InvalidInput
from rotsim.optimizers import OPTIMIZERS as REGISTERED
from rotsim.page.assemble import page
from rotsim.page.notebook import widget
from rotsim.page.numerics import text, walked
from rotsim.theory.base import theory_of
from tests.javascript import answer, needs_node

OPTIMIZERS = {name: kind for name, kind in REGISTERED.items() if walked(kind)}


class Outside(html.parser.HTMLParser):
    """References to anything but the file itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "action") and value not in ("data:,", None):
                self.found.append((tag, name, value))


def outside(text):
    reader = Outside()
    reader.feed(text)
    return reader.found


def test_it_is_one_file_that_refers_to_nothing_outside():
    written = page()
    assert outside(written) == [] and "{{" not in written.replace("${{", "")
    assert not re.search(r"\b(fetch|XMLHttpRequest|importScripts|import)\s*\(|@import|url\((?!#)", written)
    assert outside(written.replace("<title>", '<script src="https://example.org/a.js"></script><title>')) != []


def test_explore_writes_it_and_opens_it_where_there_is_a_display(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", opened.append)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(exploring.sys, "platform", "linux")
    assert main(["explore", "--output", "lecture.html"]) == 0
    assert (tmp_path / "lecture.html").read_text(encoding="utf-8") == page() and opened == []
    assert main(["explore"]) == 0 and opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["explore"]) == 0
    assert opened == [(tmp_path / exploring.DEFAULT_NAME).as_uri()]
    assert main(["explore", "--output", "no/such/folder.html"]) == 2
    assert "does not exist" in capsys.readouterr().err


def luminance(color):
    """Of `#rrggbb`, as the contrast of WCAG 2 defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_words_and_lines_stand_out_from_the_paper_in_light_and_dark():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    themes = re.findall(r":root[^{]*\{([^}]*)\}", text("style.css"))
    assert len(themes) == 2
    for theme in themes:
        colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", theme))
        for paper in (colors["paper"], colors["wash"]):
            for name in ("ink", "faint", "growth", "decay", "one", "two", "three", "four", "five", "six", "seven"):
                assert contrast(colors[name], paper) > 4.5, (name, paper)
        assert contrast(colors["on-strong"], colors["strong"]) > 4.5


CHANGED = """() => {
  const state = { ...freshState(), hidden: [] };
  state.settings.adamw.betas[0] = 0.95;
  state.settings.lion.lr = 0.003;
  Object.assign(state, { linked: false, dim: 32, schedule: "cosine", warmup: 0.1, departure: "memory", amount: 0.7 });
  return state;
}"""


@needs_node
def test_a_link_holds_a_view_and_nonsense_in_it_is_left_out():
    function = f"""() => {{
      const state = ({CHANGED})();
      const strange = "#dim=2.5&neurons=-3&seed=x&schedule=never&adamw=lr:7,betas.0:2,nothing:1&speed=99&focus=no";
      const nonsense = fromHash(strange);
      const unstable = fromHash("#adamw=lr:1,weight_decay:10").settings.adamw;
      const plain = freshState();
      return {{ state, again: fromHash(toHash(state)), hash: toHash(plain), plain, nonsense, unstable }};
    }}"""
    found = answer(function, None)
    assert found["again"] == found["state"] and found["hash"] == ""
    assert found["nonsense"] == found["plain"]
    assert found["unstable"]["lr"] * found["unstable"]["weight_decay"] < 1


@needs_node
def test_the_page_says_that_a_norm_settles_only_where_it_does():
    """A rate that falls moves the balance; few weights are spoken of however they were chosen."""
    function = """(changes) => changes.map((change) => {
      const state = { ...freshState(), ...change };
      return [outlook(state), spoken(state)];
    })"""
    changes = [
        {}, {"schedule": "cosine"}, {"schedule": "cosine", "dim": 4}, {"schedule": "wsd", "final": 1.0}, {"dim": 4},
        {"schedule": "linear", "noDecay": True}, {"schedule": "linear", "cautious": True, "departure": "mean"},
    ]  # fmt: skip
    said, spoken = zip(*answer(function, changes), strict=True)
    words = ["settles" if "settles" in one else "falls" if "rate falls" in one else one for one in said]
    assert words == ["settles", "falls", "falls", "settles", "", "", "falls"]
    assert list(spoken) == [[], [], ["smallDim"], [], ["smallDim"], ["noDecay"], ["mean", "cautious"]]


@needs_node
def test_words_below_the_squares_stay_apart():
    """Also where there is no growth; the number above says that it is their ratio."""
    function = """(growths) => growths.map((growth) => {
      const words = {};
      const pen = { line() {}, text: (x, y, said) => (words[said] = x) };
      drawGains(pen, 200, 100, { growth, decay: 0.01 }, {});
      return words;
    })"""
    for share, words in zip(
        (-0.04, 0.5, 1), answer(function, [-0.0004, 0.005, 0.01], core=text("panels.js")), strict=True
    ):
        assert words["decay"] - words["growth"] >= 42  # pixels: letters of 11 pixels are some 6 wide
        assert f"ratio {share:.2f}".replace("-", "−") in words


@needs_node
def test_a_switch_of_an_optimizer_is_in_links_and_in_the_python_call():
    """No optimizer of today has one, so one is given it."""
    function = """() => {
      OPTIMIZERS[0].hyperparameters.nesterov = false;
      const state = { ...freshState(), hidden: [] };
      state.settings.adamw.nesterov = true;
      const again = fromHash(toHash(state)).settings.adamw;
      const nonsense = fromHash("#adamw=nesterov:3,lr:true").settings.adamw;
      const kinds = hyperparameters(OPTIMIZERS[0]).map(({ scale }) => scale);
      return { again, nonsense, kinds, call: pythonCall(state) };
    }"""
    found = answer(function, None)
    assert found["again"]["nesterov"] is True and "nesterov=True" in found["call"]
    assert found["nonsense"]["nesterov"] is False and found["nonsense"]["lr"] == 0.01
    assert found["kinds"].count("switch") == 1


@needs_node
def test_sliders_go_there_and_back():
    function = """() => {
      const all = [...Object.values(COMMON), ...OPTIMIZERS.flatMap(hyperparameters)];
      const ranges = all.filter(({ scale }) => scale !== "switch");
      return ranges.map((range) => [0, 0.25, 0.5, 1].map((place) => {
        const value = fromSlider(range, place);
        return [value >= range.low && value <= range.high * (1 + 1e-9), toSlider(range, value) - place];
      }));
    }"""
    for one in answer(function, None):
        for inside, shift in one:
            assert inside and abs(shift) < 0.03


LAB = """({change}) => {
  const state = { ...freshState(), hidden: [] };
  Object.assign(state, { steps: 100, neurons: 16, dim: 32 }, change);
  const lab = new Lab(state, (question, answer) => answer(answerQuestion(question)));
  while (!lab.finished) lab.advance();
  const python = OPTIMIZERS.map((optimizer) => pythonCall({ ...state, focus: optimizer.name }));
  const curves = (of) => Object.fromEntries(Object.entries(of).map(([name, values]) => [name, [...values]]));
  const runs = lab.runs.map((run) => ({
    name: run.optimizer.name, measured: curves(run.measured), predicted: curves(run.predicted),
    agreement: lab.agreement(run, "rotation"), heading: curves(run.heading),
  }));
  return { python, runs };
}"""
FAST = {
    "plain": {},
    "hyperball, cosine": {"hyperball": True, "schedule": "cosine", "warmup": 0.1},
    "memory, cosine": {"departure": "memory", "amount": 0.5, "schedule": "cosine", "warmup": 0.1},
}
VIEWS = FAST | {
    "rotational, warm-up": {"rotational": True, "schedule": "linear", "warmup": 0.2},
    "rotational, radial": {"rotational": True, "departure": "radial", "amount": 0.05},
    "hyperball": {"hyperball": True},
    "hyperball, radial": {"hyperball": True, "departure": "radial", "amount": 0.05},
    "hyperball, few": {"hyperball": True, "neurons": 4, "steps": 40},
    "bursts": {"departure": "bursts", "amount": 5, "seed": 3},
    "mean, small": {"departure": "mean", "amount": 0.2, "smallDim": True},
    "radial": {"departure": "radial", "amount": 0.05},
    "no decay": {"noDecay": True},
    "cautious": {"cautious": True},
}


@needs_node
@pytest.mark.parametrize("view", [pytest.param(v, marks=() if v in FAST else pytest.mark.slow) for v in VIEWS])
def test_the_python_call_gives_what_the_page_shows(view):
    """Walk and course of every optimizer, run as a reader would run them."""
    found = answer(LAB, {"change": VIEWS[view]})
    for call, run in zip(found["python"], found["runs"], strict=True):
        scope = {}
        exec(call.replace('"numba"', '"numpy"'), scope)
        walk, course = scope["walk"], scope.get("course")
        assert ("rest" in scope) == (course is None and not VIEWS[view].get("schedule"))
        for ours, theirs in (("norm", "norm"), ("rotation", "rotation"), ("update", "update_rms")):
            measured = np.sqrt((walk[theirs].values ** 2).mean(axis=0))
            assert run["measured"][ours] == pytest.approx(measured.tolist(), rel=1e-5), run["name"]
            if course is None:  # theory has none, and the page draws none
                assert set(run["predicted"][ours]) == {None}
            else:
                assert run["predicted"][ours] == pytest.approx(course[theirs].values[0].tolist(), rel=1e-5), run["name"]


@needs_node
def test_a_hyperball_is_offered_to_those_that_have_one_and_needs_no_decay():
    """As the package has it; the learning rate alone sets the angle, and a link holds the switch."""
    function = """() => {
      const state = { ...freshState(), hidden: [], hyperball: true };
      Object.assign(state, { steps: 200, neurons: 4, dim: 32, norm: 1 });
      const seen = () => {
        const lab = new Lab(state, (question, answer) => answer(answerQuestion(question)));
        return lab.runs.map((run) => [run.predicted.rotation.at(-1), run.heading.rotation.at(-1), run.decay.at(-1)]);
      };
      const before = seen();
      for (const { name } of OPTIMIZERS) state.settings[name].weight_decay = 0.5;
      const [decayed, again] = [seen(), fromHash(toHash(state))];
      for (const { name } of OPTIMIZERS) state.settings[name].lr = 0.02;
      const turned = Object.fromEntries(OPTIMIZERS.map(({ name, turned }) => [name, turned.includes("hyperball")]));
      const decaying = OPTIMIZERS.map((one) => decays(state, one));
      return { before, decayed, faster: seen(), again: again.hyperball, turned, decaying };
    }"""
    found = answer(function, None)
    for name, kind in OPTIMIZERS.items():
        try:
            rotsim.Hyperball(kind(0.01, 0.0))
        except InvalidInput:
            assert not found["turned"][name]
        else:
            assert found["turned"][name]
    assert found["again"] and found["decaying"] == [not has for has in found["turned"].values()]
    for has, before, decayed, faster in zip(
        found["turned"].values(), found["before"], found["decayed"], found["faster"], strict=True
    ):
        assert (before == decayed) == has and (before[2] == 0) == has
        if has:
            assert before[1] == 0.01 and faster[1] == 0.02
            assert before[0] == pytest.approx(0.01, rel=0.03)
            assert faster[0] != pytest.approx(before[0], rel=0.5)  # negative control


@needs_node
def test_the_table_tells_agreement_from_departure():
    plain = answer(LAB, {"change": {"steps": 2000, "norm": 1, "neurons": 16}})
    for run in plain["runs"]:
        one = run["agreement"]
        assert abs(one["error"]) < 5 * one["standardError"] + 2 / 32, run["name"]
    pulled = answer(LAB, {"change": {"steps": 2000, "norm": 1, "neurons": 16, "departure": "radial", "amount": 0.5}})
    for run, kind in zip(pulled["runs"], OPTIMIZERS.values(), strict=True):
        one = run["agreement"]
        if kind.decay == "coupled":  # the pull is decay
            assert abs(one["error"]) < 5 * one["standardError"] + 2 / 32, run["name"]
        else:
            assert one["error"] > 0.3, run["name"]


@needs_node
def test_the_line_of_the_equilibrium_follows_a_memory_of_the_gradient():
    change = {"steps": 3000, "norm": 1, "neurons": 16}
    plain, remembering = (answer(LAB, {"change": {**change, **more}})["runs"] for more in (
        {}, {"departure": "memory", "amount": 0.5}
    ))  # fmt: skip
    for before, run, kind in zip(plain, remembering, OPTIMIZERS.values(), strict=True):
        theory = theory_of(kind(0.01, 0.1))
        turned, grown = theory.remembered(theory.spec.beta1, 0.5)
        for name, factor in (("norm", grown), ("rotation", turned)):
            ours, white = run["heading"][name][-1], before["heading"][name][-1]
            if ours is None:  # the page has no closed form, or theory none under a memory
                continue
            assert ours == pytest.approx(white * factor), run["name"]
            assert run["measured"][name][-1] == pytest.approx(ours, rel=0.12), run["name"]
        if run["heading"]["norm"][-1] is not None:  # control: white noise has another norm
            assert run["measured"]["norm"][-1] != pytest.approx(before["heading"]["norm"][-1], rel=0.12), run["name"]


@needs_node
def test_a_change_of_rates_goes_on_and_one_of_scale_starts_from_the_weights_as_they_are():
    # At dim 128: stronger decay that is yet to come lets Adam+L2 follow weights of a given norm, which are no Gaussian.
    function = """() => {
      const state = { ...freshState(), hidden: [] };
      Object.assign(state, { steps: 1000, neurons: 16, dim: 128, norm: 1 });
      const lab = new Lab(state, (question, answer) => answer(answerQuestion(question)));
      for (let step = 0; step < 401; step += 1) lab.advance();
      const before = lab.runs.map((run) => [...run.predicted.norm]);
      for (const optimizer of OPTIMIZERS) state.settings[optimizer.name].weight_decay = 0.5;
      lab.setRates();
      const rates = lab.runs.map((run) => [...run.predicted.norm]);
      state.scale = 10;
      lab.restart();
      const norms = lab.runs.map((run) => lab.normNow(run));
      while (!lab.finished) lab.advance();
      const [after, measured] = ["predicted", "measured"].map((of) => lab.runs.map((run) => [...run[of].norm]));
      return { before, rates, norms, after, measured, starts: lab.runs.map((run) => run.start) };
    }"""
    found = answer(function, None)
    place = found["starts"][0]
    assert place == 101  # windows of 4 steps: the one under way is walked to its end
    for before, rates, norm, after, measured in zip(
        found["before"], found["rates"], found["norms"], found["after"], found["measured"], strict=True
    ):
        assert rates[:100] == pytest.approx(before[:100], rel=1e-4) and rates[-1] < 0.9 * before[-1]
        assert after[:place] == rates[:place] and after[place] == pytest.approx(norm, rel=0.15)
        assert measured[-1] == pytest.approx(after[-1], rel=0.05)
        assert measured[-1] != pytest.approx(before[-1], rel=0.1)  # negative control


def test_a_widget_has_the_page_and_checks_its_arguments(monkeypatch):
    pytest.importorskip("anywidget")
    shown = widget("#dim=20", height=600)
    assert shown.html == page() and (shown.view, shown.height) == ("#dim=20", 600)
    for wrong in ({"height": 10}, {"view": 3}):
        with pytest.raises(InvalidInput):
            widget(**wrong)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(InvalidInput, match=r"pip install 'rotsim\[notebook\]'"):
        widget()


@needs_node
@pytest.mark.parametrize("turning", ["", "rotational", "hyperball"])
def test_the_picture_of_a_step_is_that_of_the_first_neuron(turning):
    """Old weights, decay and update add up to the new weights, in a plane whose angle is the recorded one."""
    function = """({turning}) => {
      const state = { ...freshState(), hidden: [] };
      Object.assign(state, { steps: 40, neurons: 4, dim: 32, norm: 1, [turning]: true });
      const lab = new Lab(state, (question, answer) => answer(answerQuestion(question)));
      for (let step = 0; step < 30; step += 1) lab.advance();
      const firsts = () => lab.runs.map((run) => [...run.walker.W.slice(0, 32)]);
      const before = firsts();
      lab.advance();
      return { before, after: firsts(), steps: lab.runs.map((run) => lab.latestStep(run)),
        recent: lab.runs.map((run) => lab.recent(run)) };
    }"""
    found = answer(function, {"turning": turning})
    for old, new, step, recent in zip(*(found[name] for name in ("before", "after", "steps", "recent")), strict=True):
        old, new = np.array(old), np.array(new)
        size = np.linalg.norm(old)
        angle = np.arccos(old @ new / size / np.linalg.norm(new))
        assert step["angle"] == pytest.approx(angle, rel=1e-6)
        assert np.hypot(step["across"], 1 + step["outward"]) == pytest.approx(np.linalg.norm(new) / size, rel=1e-12)
        assert np.arctan2(step["across"], 1 + step["outward"]) == pytest.approx(angle, rel=1e-6)
        assert step["angle"] != pytest.approx(recent["angle"], rel=1e-3) or turning  # control: no average
    shares = [step["shrink"] for step in found["steps"]]
    assert shares[0] == (0 if turning else pytest.approx(1e-3)) and (shares[1] > 0) == (turning != "hyperball")


@needs_node
def test_decay_and_growth_are_those_of_theory():
    """The share of decay against `lasting_decay` and the paper's Adam+L2; growth is the rest of what ‖w‖² does."""
    function = """() => {
      const state = { ...freshState(), hidden: [] };
      Object.assign(state, { steps: 500, neurons: 8, dim: 32, norm: 1 });
      const lab = new Lab(state, (question, answer) => answer(answerQuestion(question)));
      return lab.runs.map((run) => {
        const { growth, decay } = lab.balance(run, run.predicted);
        return { share: lab.decayShare(run, 1.5, 0.01, 0.1), growth: [...growth], decay: [...decay],
          norm: [...run.predicted.norm] };
      });
    }"""
    for run, kind in zip(answer(function, None), OPTIMIZERS.values(), strict=True):
        theory = theory_of(kind(0.01, 0.1))
        share = theory.lasting_decay(np.array([1e-3]))
        if share is None:
            v = closed_forms.adam_l2_second_moment(0.1, 32, 1.5**2, 1 - 1 / 32, -1)
            share = [1 / closed_forms.adam_l2_relaxation_steps(0.01, 0.1, v, 1)]
        assert run["share"] == pytest.approx(share[0]), kind.name
        change = (np.array(run["growth"]) - run["decay"])[:-1]
        assert 2 * np.sum(change) == pytest.approx(run["norm"][-1] ** 2 - 1, rel=0.1, abs=0.02), kind.name
