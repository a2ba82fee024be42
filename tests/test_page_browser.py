"""The page of `rotsim explore` in a browser: sliders, switches, keys, what it saves, and no error on its console."""

import shutil
from contextlib import contextmanager

import pytest

from rotsim.page.assemble import page

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: the extra `browser` has it"
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here to open the page in"),
    pytest.mark.filterwarnings("default"),  # of playwright's own event loop
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def view(browser, file):
    """The page, opened without a network; what it says on its console must be nothing."""
    with opened(browser, file) as (tab, said):
        yield tab
        assert said == []


@contextmanager
def opened(browser, address, **settings):
    context = browser.new_context(viewport={"width": 1280, "height": 720}, offline=True, **settings)
    tab, said = context.new_page(), []
    tab.set_default_timeout(180_000)  # ms: a slow machine is no error
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(address)
    tab.wait_for_function("view.lab.answers >= view.shown.length")
    yield tab, said
    context.close()


def test_the_walk_starts_pauses_steps_and_ends(view):
    view.click("#start")
    view.wait_for_function("view.lab.done > 20")
    view.keyboard.press("Space")  # the button has the focus, which a space presses
    done = view.evaluate("view.lab.done")
    view.keyboard.press("s")
    assert view.evaluate("view.lab.done") == done + 1
    view.evaluate("view.change('steps', 400, 'reset')")
    view.keyboard.press("e")
    view.wait_for_function("view.lab.finished")
    view.wait_for_function("document.querySelectorAll('#agreement tbody td').length === 4 * view.shown.length")
    assert "±" in view.inner_text("#agreement tbody")
    view.keyboard.press("r")
    assert view.evaluate("view.lab.done") == 0


def test_a_slider_moves_the_prediction_at_once_and_the_walk_after_it(view):
    view.evaluate("Object.assign(view.state, { neurons: 16 }) && view.change('steps', 2000, 'reset')")
    view.wait_for_function("view.lab.answers >= 2 * view.shown.length")
    last = "view.lab.runs[0].predicted.norm.at(-1)"
    before, answers = view.evaluate(last), view.evaluate("view.lab.answers")
    slider = view.get_by_label("Weight decay").first
    slider.focus()
    for _ in range(3):
        view.keyboard.press("PageUp")
    view.wait_for_function(f"view.lab.answers >= {answers} + view.shown.length && {last} < 0.7 * {before}")
    assert view.evaluate("Object.values(view.state.settings).every((spec) => spec.weight_decay > 0.5)")
    assert "weight_decay:" in view.evaluate("location.hash")
    view.keyboard.press("e")
    view.wait_for_function("view.lab.finished")
    assert view.evaluate("Math.abs(view.lab.agreement(view.lab.runs[0], 'norm').error)") < 0.05


def test_every_slider_and_switch_can_be_used(view):
    for place in range(view.locator("input[type=range]").count()):
        view.locator("input[type=range]").nth(place).focus()
        view.keyboard.press("ArrowRight")
    for name in ("mean", "memory", "radial", "bursts", "smallDim", "noDecay", "rotational", "hyperball"):
        said = said_now(view)
        view.click(f"#break-{name}")
        view.wait_for_function("said => document.getElementById('sentence').textContent !== said", arg=said)
        view.keyboard.press("s")
    assert view.evaluate("view.state.departure") == "bursts"
    assert view.evaluate("view.state.hyperball && !view.state.rotational && !view.state.noDecay")
    assert view.get_by_label("Weight decay").first.is_disabled() and "more than two averages" in said_now(view)
    view.click("#break-hyperball")
    assert view.get_by_label("Weight decay").first.is_enabled()
    for name in ("cosine", "wsd", "linear", "constant"):
        view.select_option("#schedule", name)
        assert view.evaluate("view.state.schedule") == name
    view.fill("#seed", "7")
    view.press("#seed", "Enter")
    assert view.evaluate("view.state.seed") == 7


def said_now(view):
    return view.inner_text("#sentence")


def test_an_optimizer_is_chosen_hidden_and_has_its_own_rate(view):
    view.locator("body").press("4")
    assert view.evaluate("view.state.focus") == "lion" and view.inner_text("#own-name") == "Lion"
    view.uncheck("#linked")
    view.get_by_label("Learning rate").first.focus()
    view.keyboard.press("PageDown")
    rates = view.evaluate("Object.values(view.state.settings).map((spec) => spec.lr)")
    assert len(set(rates[:3])) == 1 and rates[3] < rates[0]
    view.get_by_label("Hide SGDM").click()
    assert view.locator("#planes figure").count() == 3
    view.keyboard.press("s")
    view.get_by_label("Show Muon").click()
    assert view.evaluate("[view.lab.done, view.lab.walking.length]") == [0, 4]
    view.keyboard.press("s")
    assert view.evaluate("view.lab.latestStep(view.lab.runs.find((run) => run.optimizer.name === 'muon')).angle") > 0
    view.check("#linked")
    assert len(set(view.evaluate("Object.values(view.state.settings).map((spec) => spec.lr)"))) == 1


def test_it_saves_pictures_numbers_and_the_python_call(view):
    view.evaluate("view.change('steps', 300, 'reset')")
    view.keyboard.press("e")
    view.wait_for_function("view.lab.finished")
    heads = {"png": b"\x89PNG", "svg": b"<svg xmlns", "csv": b"step,optimizer,lr,weight_decay,norm,norm_low"}
    for name, head in heads.items():
        with view.expect_download() as saved:
            view.click(f"#save-{name}")
        content = saved.value.path().read_bytes()
        assert saved.value.suggested_filename == f"rotsim.{name}" and content.startswith(head)
        assert len(content) > 5000
    view.keyboard.press("p")
    assert "rotsim.simulate(" in view.inner_text("dialog pre")
    view.keyboard.press("Escape")
    view.keyboard.press("?")
    assert "start, pause" in view.inner_text("dialog pre")


def test_a_link_opens_the_same_view(browser, file, view):
    with opened(browser, f"{file}#dim=20&schedule=cosine&departure=memory&amount=0.7&focus=sgdm") as (tab, said):
        assert tab.evaluate("[view.lab.dim, view.state.schedule, view.lab.law.correlation]") == [20, "cosine", 0.7]
        assert tab.inner_text("#own-name") == "SGDM" and said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_takes_the_theme_of_the_system_and_has_names_for_everything(browser, file, scheme):
    with opened(browser, file, color_scheme=scheme) as (tab, said):
        assert tab.evaluate("document.documentElement.dataset.theme") == scheme
        tab.keyboard.press("s")
        tab.wait_for_function("[...document.querySelectorAll('canvas')].every((one) => one.getAttribute('aria-label'))")
        unnamed = """[...document.querySelectorAll('button, input, select')].filter((one) =>
          !one.textContent.trim() && !one.labels?.length && !one.getAttribute('aria-label')).map((one) => one.id)"""
        assert tab.evaluate(unnamed) == []
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.evaluate(overflow) <= 0
        tab.set_viewport_size({"width": 820, "height": 1180})
        assert tab.evaluate(overflow) <= 0 and said == []


def test_an_error_would_be_heard(browser, tmp_path):
    """Negative control."""
    broken = tmp_path / "broken.html"
    broken.write_text(page().replace("this.stepOnce()", "this.stepTwice()"), encoding="utf-8")
    with opened(browser, broken.as_uri()) as (tab, said):
        tab.keyboard.press("s")
        tab.wait_for_timeout(100)
        assert any("stepTwice" in words for words in said)


NOTEBOOK = """async ({esm, html, view, height}) => {
  const module = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
  window.traits = { html, view, height };
  window.heard = {};
  const model = {
    get: (name) => traits[name], set: (name, value) => (traits[name] = value),
    save_changes: () => {}, on: (event, act) => (heard[event] = act),
  };
  module.default.render({ model, el: document.body });
}"""


def test_a_notebook_shows_it_and_settings_go_both_ways(browser):
    """The widget's own module on a page that does what Jupyter and marimo do for it."""
    pytest.importorskip("anywidget")
    from rotsim.page.notebook import widget

    shown = widget("#dim=20", height=600)
    tab, said = browser.new_page(), []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto("about:blank")
    tab.evaluate(NOTEBOOK, {"esm": shown._esm, "html": shown.html, "view": shown.view, "height": shown.height})
    frame = tab.frames[1]
    frame.wait_for_function("typeof view !== 'undefined'")
    assert frame.evaluate("view.lab.dim") == 20
    frame.evaluate("view.change('neurons', 9, 'reset')")
    tab.wait_for_function("traits.view.includes('neurons=9') && traits.view.includes('dim=20')")
    tab.evaluate("traits.view = '#dim=40'; heard['change:view']()")
    frame.wait_for_function("view.lab.dim === 40 && view.state.neurons === 64")
    tab.evaluate("traits.height = 500; heard['change:height']()")
    assert tab.evaluate("document.querySelector('iframe').clientHeight") == 500 and said == []
    tab.close()
