"""The report in a real browser without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_helpers import HOSTILE, content, effect_map

from eocausal.effect_map import EffectMap
from eocausal.reports.html import ReportContent, write_report

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium on the PATH: the report was NOT opened in a browser")
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: the report was NOT opened"
    )
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


class Opened:
    """A page that was opened offline, with what it asked for and what it complained about."""

    def __init__(self, browser, path: Path, width: int, script: bool = True) -> None:
        self.context = browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, java_script_enabled=script
        )
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("console", self._console)
        self.page.goto(path.as_uri())
        if script:
            self.page.wait_for_selector("#effect-map[data-ready=yes]", timeout=30_000)
            self.page.wait_for_timeout(300)

    def _console(self, message) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def center_of(self, row: int) -> tuple[float, float]:
        """Scroll to the map and return where a place is on the screen."""
        self.page.locator("#effect-map").scroll_into_view_if_needed()
        box = self.page.evaluate(
            """(row) => {
              const plot = Bokeh.documents[0].roots()[0];
              const source = plot.renderers[0].data_source.data;
              const mean = (a) => a.reduce((s, v) => s + v, 0) / a.length;
              const x = source.x ? source.x[row] : mean(source.xs[row][0][0].slice(0, 4));
              const y = source.y ? source.y[row] : mean(source.ys[row][0][0].slice(0, 4));
              const view = Object.values(Bokeh.index)[0] || Bokeh.index.roots[0];
              const frame = view.frame;
              const place = view.canvas_view.el.getBoundingClientRect();
              return [place.left + frame.x_scale.compute(x), place.top + frame.y_scale.compute(y)];
            }""",
            row,
        )
        return box[0], box[1]

    def hover(self, row: int) -> str:
        """Point at a place and return the text of the tooltip."""
        x, y = self.center_of(row)
        self.page.mouse.move(x - 3, y - 3)
        self.page.mouse.move(x, y)
        tip = self.page.locator(".bk-tooltip-content")
        tip.first.wait_for(state="visible", timeout=10_000)
        return tip.first.inner_text()

    def colors(self, row: int) -> list[tuple[int, ...]]:
        """Colors of the screen in the middle of a place, 13 by 13 pixels."""
        import io

        from PIL import Image

        x, y = self.center_of(row)
        self.page.mouse.move(0, 0)
        self.page.wait_for_timeout(300)
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        steps = range(-6, 7)
        return [image.getpixel((int(x) + i, int(y) + j)) for i in steps for j in steps]

    def color(self, row: int) -> tuple[int, ...]:
        """The one color of the screen in the middle of a place."""
        (only,) = set(self.colors(row))
        return only


@pytest.fixture(scope="module")
def plain(browser, tmp_path_factory) -> Opened:
    path = write_report(tmp_path_factory.mktemp("plain") / "report.html", content())
    return Opened(browser, path, 1100)


def test_it_opens_offline_and_asks_for_nothing(plain):
    assert [u.split(":")[0] for u in plain.asked if not u.startswith("data:")] == ["file"]
    assert plain.complaints == []


def test_hovering_a_place_shows_its_numbers(plain):
    text = plain.hover(40)
    table = content().effect_map.table
    assert "place 40" in text
    assert f"{table['estimate'].iloc[40]:.3f}".replace("-", "−") in text
    assert "(95%)" in text
    assert "inside the study's support" in text


def test_hovering_an_extrapolation_says_so(plain):
    assert "extrapolated: unlike any place of the study" in plain.hover(1)


def test_an_extrapolation_is_hatched_and_others_are_not(plain):
    assert len(set(plain.colors(1))) > 5
    assert len(set(plain.colors(40))) == 1


def test_a_place_without_estimate_is_grey_for_every_measure(plain):
    assert plain.color(2) == (0xB9, 0xBF, 0xC5)


def test_switching_the_measure_recolors_the_map(plain):
    before = plain.color(40)
    plain.page.check("input[value=std_error]")
    assert plain.color(40) != before
    bars = plain.page.evaluate(
        """['estimate', 'std_error', 'support'].map(
             (n) => Bokeh.documents[0].get_model_by_name('bar-' + n).visible)"""
    )
    assert bars == [False, True, False]
    plain.page.check("input[value=estimate]")
    assert plain.color(40) == before


def test_hostile_names_are_inert_and_readable(browser, tmp_path):
    opened = Opened(browser, write_report(tmp_path / "r.html", content(hostile=True)), 1100)
    assert HOSTILE[1] in opened.hover(1)
    assert HOSTILE[2] in opened.hover(2)
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate("window.hacked === undefined")
    assert opened.page.title() == HOSTILE[1]
    assert opened.complaints == []


def test_the_policy_stops_a_script_that_is_not_ours(browser, tmp_path):
    path = write_report(tmp_path / "r.html", content())
    page = path.read_text(encoding="utf-8")
    path.write_text(page.replace("</main>", "<script>window.hacked=1</script></main>"))
    opened = Opened(browser, path, 1100)
    assert opened.page.evaluate("window.hacked === undefined")
    assert any("Content Security Policy" in text for text in opened.complaints)


def test_a_failed_check_is_what_one_sees_first(browser, tmp_path):
    opened = Opened(browser, write_report(tmp_path / "r.html", content(failed=True)), 1100)
    alarm = opened.page.locator("[role=alert]").bounding_box()
    heading = opened.page.locator("h1").bounding_box()
    assert alarm["y"] < 60
    assert alarm["y"] + alarm["height"] <= heading["y"]


def test_ten_thousand_places_open_in_time(browser, tmp_path):
    table = effect_map(100).table
    table.loc[table.index[::4], "status"] = "extrapolated"
    many = ReportContent(title="T", claim="C", effect_map=EffectMap(table))
    opened = Opened(browser, write_report(tmp_path / "r.html", many), 1100)
    assert opened.complaints == []


@pytest.mark.parametrize("points", [False, True])
def test_a_phone_needs_no_sideways_scrolling(browser, tmp_path, points):
    opened = Opened(browser, write_report(tmp_path / "r.html", content(points=points)), 360)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert "place 40" in opened.hover(40)


def test_without_scripts_the_static_map_is_shown(browser, tmp_path):
    opened = Opened(browser, write_report(tmp_path / "r.html", content()), 1100, script=False)
    image = opened.page.locator("noscript img, img[alt^='Map of effects']").first
    assert image.bounding_box()["height"] > 200
