"""report.html in a real browser, with mouse, touch and keyboard."""

import base64
import csv
import io
import itertools
import json

import numpy as np
import pytest
from command_line import run
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

REGION = 48  # what a magnifier shows
LAST = 2  # the scene of the largest image, 160 x 144, which is enlarged three times


@pytest.fixture
def page(chromium, evaluated):
    """The page of the evaluation, newly loaded on a wide, light screen, with an empty log."""
    show(chromium)
    open_page(chromium, evaluated.folder / "report.html")
    return chromium


def show(browser, *, width=1280, scheme="light"):
    """Sets the screen's width and the colours that the user prefers."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def open_page(browser, path):
    """Loads a page and waits until its magnifiers show something."""
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    drawn = "return [...document.querySelectorAll('.frame')].every((frame) => frame.style.width)"
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda b: b.execute_script(drawn))


def requested(browser) -> list[str]:
    """Lists the addresses that were requested since the page was opened."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def scene_of(browser, index=LAST):
    """Returns an image's part of the page, in view."""
    scene = browser.find_elements(By.CLASS_NAME, "scene")[index]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", scene)
    return scene


def choose(scene, left, right):
    """Chooses the compared versions by their indices."""
    for side, index in (("left", left), ("right", right)):
        Select(scene.find_element(By.CSS_SELECTOR, f"[data-side={side}]")).select_by_index(index)


def shot(element) -> np.ndarray:
    """Returns a screenshot of an element, uint8 [H,W,3]."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))


def canvas_pixels(browser, canvas) -> np.ndarray:
    """Returns the pixels of a canvas, uint8 [H,W,3]."""
    uri = browser.execute_script("return arguments[0].toDataURL()", canvas)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def versions_of(evaluated, index=LAST):
    """Returns the pictures of a scene in the page's order: the methods, HR."""
    return [evaluated.picture(kind, sorted(evaluated.images)[index]) for kind in (*evaluated.methods, "hr")]


def assert_divided(stage, left, right, share):
    """Asserts that the left picture is shown up to `share` of the width, and the right one from there on."""
    seen, factor = shot(stage), 3
    assert seen.shape == (factor * left.shape[0], factor * left.shape[1], 3)
    column = share * seen.shape[1]
    where = np.arange(seen.shape[1])
    for picture, side in ((left, where < column - 20), (right, where > column + 20)):  # beside the handle
        assert side.any()
        expected = picture.repeat(factor, 0).repeat(factor, 1)
        differs = np.any(np.abs(seen.astype(int) - expected) > 2, axis=-1)
        frame = 4 * 2 * (factor * REGION + 2)  # of what is magnified: a line of 2 pixels over it
        assert np.count_nonzero(differs[:, side]) <= frame
    assert np.any(np.abs(left.astype(int) - right) > 8)


def test_page_says_nothing_and_asks_for_nothing(page, evaluated):
    scene_of(page).find_element(By.CSS_SELECTOR, ".errors summary").click()
    assert page.get_log("browser") == []
    urls = requested(page)
    assert (evaluated.folder / "report.html").as_uri() in urls
    assert {url.partition(":")[0] for url in urls} == {"file", "data"}
    assert len([url for url in urls if url.startswith("file:")]) == 1


def test_policy_forbids_all_but_the_pages_own(page):
    violations = page.execute_async_script(
        """
        const done = arguments[0], seen = [];
        document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
        document.body.insertAdjacentHTML("beforeend", `<img src="http://127.0.0.1:9/x.png"
          onerror="window.owned = 1"><p style="color: red">`);
        for (const [name, values] of [["script", {textContent: "window.owned = 2"}],
            ["link", {rel: "stylesheet", href: "http://127.0.0.1:9/x.css"}], ["iframe", {src: "http://127.0.0.1:9/"}]])
          document.body.append(Object.assign(document.createElement(name), values));
        fetch("http://127.0.0.1:9/").catch(() => setTimeout(() => done([...new Set(seen)].sort()), 300));
        """
    )
    assert violations == [
        "connect-src", "frame-src", "img-src", "script-src-attr", "script-src-elem", "style-src-attr",
        "style-src-elem",
    ]  # fmt: skip
    assert page.execute_script("return window.owned") is None


def test_names_of_files_and_methods_are_text(page, evaluated):
    assert page.execute_script("return document.querySelectorAll('script, svg, b:not(.best)').length") == 1
    titles = [heading.text for heading in page.find_elements(By.CSS_SELECTOR, "h3")]
    for title, image in zip(titles, sorted(evaluated.images), strict=True):
        assert title.startswith(image)
    assert page.find_element(By.TAG_NAME, "h2").text.startswith("<b>Set")
    cells = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, "table tbody th")]
    assert cells[:2] == list(evaluated.methods)
    picture = scene_of(page).find_elements(By.CSS_SELECTOR, "figcaption a")[1]
    picture.click()
    WebDriverWait(page, 5).until(lambda b: b.current_url.endswith(".png"))
    assert page.execute_script("return document.images[0].naturalWidth") == 144


def test_texts_of_a_summary_are_text(chromium, evaluated, tmp_path):
    markup = "</script><script>alert(3)</script><!--{{ 7 * 7 }}"
    text = f"{markup}\u202e\x1b[31m\u2028"
    folder = evaluated.folder / "bicubic"
    summary = json.loads((folder / "summary.json").read_text())
    summary["method"] = summary["versions"]["jax"] = summary["conventions"]["psnr_ssim"] = text
    summary["conventions"]["low"] = summary["versions"]["weights"] = {"<b>Set": text}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "run" / "rows.csv").write_bytes((folder / "rows.csv").read_bytes())
    (tmp_path / "run" / "sr").symlink_to(folder / "sr")
    result = run("decloss_jax", "report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert result.returncode == 0, result.stderr
    open_page(chromium, tmp_path / "page.html")
    assert chromium.execute_script("return document.scripts.length") == 1
    shown = rf"{markup}\u202e\x1b[31m\u2028"  # nothing turns the direction of writing
    assert chromium.title.startswith(shown)
    notes = chromium.find_element(By.TAG_NAME, "footer").text
    assert notes.count(shown) == 3
    assert chromium.get_log("browser") == []


def test_divider_follows_mouse_touch_and_keys(page, evaluated):
    scene = scene_of(page)
    stage = scene.find_element(By.CLASS_NAME, "stage")
    bicubic, sr, hr = versions_of(evaluated)
    choose(scene, 1, 0)
    assert_divided(stage, sr, bicubic, 0.5)
    choose(scene, 2, 1)
    assert_divided(stage, hr, sr, 0.5)
    width = stage.size["width"]
    ActionChains(page).move_to_element(stage).click_and_hold().move_by_offset(width // 4, 30).perform()
    assert_divided(stage, hr, sr, 0.75)  # while the button is down
    ActionChains(page).release().perform()
    assert_divided(stage, hr, sr, 0.75)

    touch = ActionBuilder(page, mouse=PointerInput("touch", "finger"))
    at = stage.rect["y"] - page.execute_script("return scrollY") + 100
    touch.pointer_action.move_to_location(int(stage.rect["x"] + 0.75 * width), int(at))
    touch.pointer_action.pointer_down()
    touch.pointer_action.move_to_location(int(stage.rect["x"] + 0.3 * width), int(at))
    touch.pointer_action.pointer_up()
    touch.perform()
    slider = scene.find_element(By.CSS_SELECTOR, "input[type=range]")
    assert float(slider.get_property("value")) == pytest.approx(30, abs=1)
    assert_divided(stage, hr, sr, 0.3)

    before = float(slider.get_property("value"))
    slider.send_keys(Keys.ARROW_RIGHT * 10)
    assert float(slider.get_property("value")) == pytest.approx(before + 10)
    assert_divided(stage, hr, sr, (before + 10) / 100)
    assert page.get_log("browser") == []


def test_magnifiers_follow_pointer_and_keys(page, evaluated):
    scene = scene_of(page)
    stage = scene.find_element(By.CLASS_NAME, "stage")
    pictures = versions_of(evaluated)
    lenses = scene.find_elements(By.CLASS_NAME, "lens")
    height = pictures[0].shape[0]

    def assert_shown(left, top):
        for lens, picture in zip(lenses, pictures, strict=True):
            expected = picture[top : top + REGION, left : left + REGION]
            np.testing.assert_array_equal(canvas_pixels(page, lens), expected)

    def hover(x, y):
        """Goes over a pixel of the image, each shown as 3 x 3."""
        offset = (3 * x - stage.size["width"] // 2, 3 * y - stage.size["height"] // 2)
        ActionChains(page).move_to_element_with_offset(stage, *offset).perform()

    hover(50, 90)
    assert_shown(50 - REGION // 2, 90 - REGION // 2)
    hover(100, 60)
    assert_shown(100 - REGION // 2, 60 - REGION // 2)
    frame = page.execute_script("return arguments[0].getBoundingClientRect().toJSON()",
                                stage.find_element(By.CLASS_NAME, "frame"))  # fmt: skip
    assert frame["x"] - stage.rect["x"] == pytest.approx(3 * (100 - REGION // 2), abs=1)
    assert frame["width"] == pytest.approx(3 * REGION, abs=1)
    hover(2, height - 2)
    assert_shown(0, height - REGION)  # at the corner

    scrolled = page.execute_script("return scrollY")
    scene.find_element(By.CLASS_NAME, "lenses").send_keys(Keys.ARROW_RIGHT * 2 + Keys.ARROW_UP)
    assert_shown(2 * 12, height - REGION - 12)
    scene.find_element(By.CLASS_NAME, "lenses").send_keys(Keys.ARROW_DOWN * 9 + Keys.ARROW_LEFT * 9)
    assert_shown(0, height - REGION)
    assert page.execute_script("return scrollY") == scrolled


def test_magnifiers_start_where_the_versions_differ_most(page, evaluated):
    first, *_, hr = versions_of(evaluated)
    lenses = scene_of(page).find_elements(By.CLASS_NAME, "lens")
    shown = [canvas_pixels(page, lens).astype(int) for lens in (lenses[0], lenses[-1])]
    here = np.var(shown[0] - shown[1])
    difference = first.astype(int) - hr
    places = [(y, x) for y in range(0, 160 - REGION + 1, 32) for x in range(0, 144 - REGION + 1, 32)]
    assert here == pytest.approx(max(np.var(difference[y : y + REGION, x : x + REGION]) for y, x in places))


def test_error_maps_show_the_absolute_error(page, evaluated):
    import matplotlib

    scene = scene_of(page)
    scene.find_element(By.CSS_SELECTOR, ".errors summary").click()
    maps = scene.find_elements(By.CLASS_NAME, "error")
    WebDriverWait(page, 5).until(lambda b: maps[-1].get_property("width") > 1)
    *srs, hr = versions_of(evaluated)
    stops = matplotlib.colormaps["magma"](np.linspace(0, 1, 5))[:, :3] * 255
    assert len(maps) == len(srs)
    for canvas, sr in zip(maps, srs, strict=True):
        error = np.abs(sr.astype(float) - hr).mean(-1)
        amplified = np.minimum(8 * error, 255) / 255
        expected = np.stack([np.interp(amplified, np.linspace(0, 1, 5), stop) for stop in stops.T], axis=-1)
        np.testing.assert_allclose(canvas_pixels(page, canvas), expected, atol=1.5)
        caption = canvas.find_element(By.XPATH, "..").text
        assert f"mean {error.mean():.2f} of 255" in caption


def test_headers_sort_numerically_both_ways(page, evaluated):
    page.find_element(By.CSS_SELECTOR, ".rows summary").click()
    table = page.find_element(By.CSS_SELECTOR, ".rows table")
    values = []
    for method in evaluated.methods:
        with (evaluated.folder / method / "rows.csv").open() as file:
            values += [float(row["psnr_y"]) for row in csv.DictReader(file)]
    header = next(h for h in table.find_elements(By.TAG_NAME, "th") if h.text.startswith("psnr_y"))
    position = page.execute_script("return arguments[0].cellIndex", header)

    def column(index):
        """The texts of a column, as they stand on the page."""
        script = "return [...arguments[0].tBodies[0].rows].map((row) => row.cells[arguments[1]].textContent)"
        return page.execute_script(script, table, index)

    assert header.get_attribute("aria-sort") is None
    header.find_element(By.TAG_NAME, "button").click()
    assert header.get_attribute("aria-sort") == "descending"  # the better ones first
    assert column(position) == [f"{value:.3f}" for value in sorted(values, reverse=True)]
    header.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(position) == [f"{value:.3f}" for value in sorted(values)]
    table.find_elements(By.CSS_SELECTOR, "th button")[0].send_keys(Keys.SPACE)
    assert header.get_attribute("aria-sort") is None
    assert column(0) == [name for name in sorted(evaluated.images) for _ in evaluated.methods]


def test_sort_knows_infinity_and_what_is_missing(page):
    """9 precedes 10 and 100, infinity is at its end, and a missing value is always last."""
    page.execute_script(
        """
        const body = document.querySelector("table").tBodies[0], row = body.rows[0];
        const values = ["100", "nan", "9", "inf", "-3.5", "10", "inf"];
        body.replaceChildren(...values.map((value) => {
          const copy = row.cloneNode(true);
          copy.cells[1].dataset.value = copy.cells[1].textContent = value;
          return copy;
        }));
        """
    )
    button = page.find_elements(By.CSS_SELECTOR, "table th button")[1]
    script = (
        "return [...document.querySelector('table').tBodies[0].rows].map((row) => row.cells[1].textContent)"
    )
    button.click()
    assert page.execute_script(script) == ["inf", "inf", "100", "10", "9", "-3.5", "nan"]
    button.click()
    assert page.execute_script(script) == ["-3.5", "9", "10", "100", "inf", "inf", "nan"]


def test_phone_scrolls_tables_and_nothing_else(page, evaluated):
    show(page, width=360)
    open_page(page, evaluated.folder / "report.html")
    for details in page.find_elements(By.TAG_NAME, "summary"):
        details.click()
    outer, inner = page.execute_script(
        "const root = document.documentElement; return [root.clientWidth, root.scrollWidth]"
    )
    assert inner == outer <= 360
    boxes = page.execute_script(
        "return [...document.querySelectorAll('.scroll')].map((box) => [box.clientWidth, box.scrollWidth])"
    )
    assert all(outer < 360 for outer, _ in boxes)
    assert any(inner > outer for outer, inner in boxes)


def contrast(browser, selector) -> float:
    """Returns the contrast of an element's text with the page's background, as WCAG defines it."""
    script = """
        const ground = getComputedStyle(document.body).backgroundColor;
        const colors = [getComputedStyle(arguments[0]).color, ground];
        return colors.map((color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number));
    """
    colors = browser.execute_script(script, browser.find_element(By.CSS_SELECTOR, selector))
    linear = [[v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.divide(c, 255)]
              for c in colors]  # fmt: skip
    dark, light = sorted(float(np.dot(c, (0.2126, 0.7152, 0.0722))) for c in linear)
    return (light + 0.05) / (dark + 0.05)


def test_light_and_dark_both_read_well(page, evaluated):
    grounds = {}
    for scheme in ("light", "dark"):
        show(page, scheme=scheme)
        for selector in ("h1", "td", ".quiet", "small", "a", "summary", "figcaption", "footer li"):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        grounds[scheme] = np.median(shot(page.find_element(By.TAG_NAME, "h1")))
    assert grounds["dark"] < 60 < 200 < grounds["light"]


def test_keyboard_reaches_everything_and_shows_where_it_is(page):
    seen = set()
    script = """
        const e = document.activeElement, style = getComputedStyle(
            e.matches("input") ? e.nextElementSibling : e, e.matches("input") ? "::after" : null);
        return [e.className || e.type || e.localName, style.outlineStyle, parseFloat(style.outlineWidth)];
    """
    for _ in range(25):
        ActionChains(page).send_keys(Keys.TAB).perform()
        name, style, width = page.execute_script(script)
        assert style != "none", name
        assert width >= 1, name
        seen.add(name)
    assert {"button", "summary", "select-one", "range", "lenses", "a"} <= seen


def test_page_is_described(page):
    """For assistive technology: language, title, headings in order, and names of all controls."""
    assert page.execute_script("return document.documentElement.lang") == "en"
    assert page.title
    levels = [int(h.tag_name[1]) for h in page.find_elements(By.CSS_SELECTOR, "h1, h2, h3, h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(i.get_attribute("alt") for i in page.find_elements(By.TAG_NAME, "img"))
    page.execute_script("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for control in page.find_elements(By.CSS_SELECTOR, "button, select, input, canvas, [tabindex]"):
        assert control.accessible_name or control.get_attribute("aria-label"), control.get_attribute(
            "outerHTML"
        )
