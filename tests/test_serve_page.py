"""The page, in Debian's Chromium: a picture is drawn, seen on its way, explained and compared."""

import base64
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageChops

from hybridstitch.serve.page import page
from mini_folder import save
from serving import FAULTS, recipe, serving

KEY = "sesame"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
browser_only = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver tries the page in one"
)


def test_the_page_asks_nobody_but_this_server():
    html = page().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not [word for word in ("http:", "https:", ' src="', "@import", "url(http") if word in html]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    words = ("--recipe", str(recipe(folder / "recipe.json")), "--target-seconds", "0.001", "--floor", "0.85")
    more = ("--images-per-call", "4", "--log-prompts")
    known = {"FAULTS": "", "HYBRIDSTITCH_API_KEY": KEY}
    with serving(folder, save(folder / "mini"), *words, *more, command=FAULTS, **known) as running:
        yield running


def test_a_key_opens_all_but_the_page_and_health(here):
    assert [here.get(path).status_code for path in ("/", "/health/live", "/health/ready")] == [200] * 3
    for path in ("/v1/models", "/v1/requests/some-request", "/metrics", "/openapi.json"):
        refused = here.get(path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "bad_key")
    given = {"authorization": f"Bearer {KEY}"}
    assert httpx.get(f"{here.url}/v1/models", headers=given).status_code == 200
    assert httpx.get(f"{here.url}/v1/models", headers={"authorization": f"Bearer {KEY}s"}).status_code == 401
    assert here.draw().status_code == 401


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_load_decides_the_speed_of_those_who_ask_for_none_and_says_so(here):
    def ask(fields):
        body = {"prompt": "a small cat on a beach", "size": "32x16", "seed": 1, **fields}
        given = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{here.url}/v1/images/generations", json=body, headers=given, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    with ThreadPoolExecutor(6) as pool:
        free, fast, *rest = pool.map(ask, [{}, {"speed": 1.6}, {"quality": "max"}, {}, {}, {}])
    ours = free["hybridstitch"]
    assert (ours["speed"], ours["closeness"], ours["chosen_by_load"]) == (
        3.0,
        0.9,
        2,
    )  # the fastest that is close enough
    assert ours["policy"] == "schedule:program=S2 L R@0.3"
    assert (fast["hybridstitch"]["speed"], fast["hybridstitch"]["chosen_by_load"]) == (1.6, None)
    assert rest[0]["hybridstitch"]["policy"] == "large"
    alone = Image.open(BytesIO(base64.b64decode(free["data"][0]["b64_json"])))
    for other in rest[1:]:  # drawn in one call or alone
        apart = ImageChops.difference(alone, Image.open(BytesIO(base64.b64decode(other["data"][0]["b64_json"]))))
        assert max(high for _, high in apart.getextrema()) <= 2
    metrics = httpx.get(f"{here.url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    assert 'hybridstitch_points_total{rung="2"} 4.0' in metrics
    assert here.lines(prompt="a small cat on a beach", status=200)  # it was asked to log prompts


def opened(browser, here):
    """The page, with its key given as a user gives it."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(here.url)
    wait = WebDriverWait(browser, 60, 0.02)
    key = browser.find_element(By.ID, "key")
    wait.until(lambda _: key.is_displayed())
    key.send_keys(KEY, Keys.TAB)
    wait.until(lambda _: "on cpu" in browser.find_element(By.ID, "pair").text)


def seen(browser, folder, name, width, height=1000):
    """A screenshot, and that nothing is wider than the window."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    tall = browser.execute_script("return document.documentElement.scrollHeight")
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": min(tall, 4000), "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.save_screenshot(str(folder / f"{name}-{width}.png"))


@browser_only
def test_a_picture_is_drawn_seen_on_its_way_explained_and_compared(here, browser, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def find(name):
        return browser.find_element(By.ID, name)

    def until(true):
        return WebDriverWait(browser, 60, 0.02).until(lambda _: true())

    folder = Path(os.environ.get("HYBRIDSTITCH_TEST_SHOTS", tmp_path))
    opened(browser, here)
    until(lambda: "1 worker: cpu idle" in find("state").text)
    seen(browser, folder, "empty", 1280)

    prompt = find("prompt")
    prompt.clear()
    prompt.send_keys("a big dog on a meadow slow")
    find("seed").send_keys("3")
    slider = find("speed")
    before = find("point").text
    assert "the server’s default" in before
    slider.send_keys(Keys.END)
    assert "the large model alone" in find("point").text
    prompt.send_keys(Keys.CONTROL + Keys.ENTER)  # draw, by keyboard
    until(lambda: find("picture").get_attribute("data-partials") == "1")
    sketch = find("picture").get_attribute("src")
    seen(browser, folder, "sketch", 1280)
    until(lambda: find("picture").get_attribute("data-partials") == "3")
    until(lambda: find("said").text.startswith("drawn in"))
    assert find("picture").get_attribute("src") != sketch
    assert len(browser.find_elements(By.CSS_SELECTOR, "#strip li")) == 4
    cells = browser.find_elements(By.CSS_SELECTOR, "#bar rect")
    assert len(cells) >= 6
    assert "large model alone" in find("legend").text
    assert "seed" in find("facts").text

    slider.send_keys(Keys.HOME)  # the fastest
    assert find("point").text != before
    find("draw").click()
    until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#gallery button")) == 2)
    find("who").click()
    until(lambda: find("mask").is_displayed())
    find("who").click()
    find("against").click()
    until(lambda: find("compare").is_displayed())
    split = find("split")
    clip = find("large").get_attribute("style")
    split.send_keys(Keys.ARROW_RIGHT * 20)
    assert find("large").get_attribute("style") != clip
    seen(browser, folder, "compared", 1280)
    seen(browser, folder, "compared", 390, 844)
    browser.find_elements(By.CSS_SELECTOR, "#gallery button")[1].click()  # back to the first
    assert not find("compare").is_displayed()
    assert not [line for line in browser.get_log("browser") if "401" not in line["message"]]


@browser_only
def test_what_is_wrong_is_said_on_the_page(here, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    opened(browser, here)
    wait = WebDriverWait(browser, 60, 0.02)
    browser.execute_script("document.getElementById('prompt').value = 'dog '.repeat(500)")
    browser.find_element(By.ID, "draw").click()
    said = browser.find_element(By.ID, "said")
    wait.until(lambda _: "leave out" in said.text)
    assert said.get_attribute("class") == "error"
    browser.find_element(By.ID, "draw").click()
    wait.until(lambda _: browser.find_element(By.ID, "draw").is_enabled())
