"""The pages in a real browser: follow, cancel and retry a job; wide, narrow, dark, light, by keyboard."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.gateway.browser import browser
from tests.gateway.system import SECONDS, Server, body, ended, running

SHOTS = os.environ.get("SHARDLINE_SCREENSHOTS")
# The driver's errors when the page navigates during a command: the text differs by command.
_NAVIGATION_ERRORS = (
    "does not belong to the document",
    "aborted by navigation",
    "loader has changed",
    "execution context",
    "inspected target navigated",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("chrome")) as found:
        found.set_window_size(1200, 1000)
        yield found


def until(chrome: Chrome, holds: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    # The page reloads when a job ends or starts.
    transient = [StaleElementReferenceException, NoSuchElementException]

    def now(_: Chrome) -> object:
        try:
            return holds()
        except WebDriverException as error:
            if not any(words in (error.msg or "").lower() for words in _NAVIGATION_ERRORS):
                raise
            return False

    WebDriverWait(chrome, SECONDS, 0.05, ignored_exceptions=transient).until(now)


def button(chrome: Chrome, label: str) -> WebElement:
    """Return the first button with this label."""
    return chrome.find_element(By.XPATH, f"//button[starts-with(., '{label}')]")


def press(chrome: Chrome, label: str) -> None:
    """Press a button once it is displayed."""

    def pressed() -> bool:
        found = button(chrome, label)
        if not found.is_displayed():
            return False
        found.click()
        return True

    until(chrome, pressed)


def shoot(chrome: Chrome, name: str) -> None:
    """Save a screenshot into the folder SHARDLINE_SCREENSHOTS, when it is set."""
    if SHOTS:
        chrome.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


def text(chrome: Chrome, field: str) -> str:
    """Return the text of a field of the job on the page."""
    found: str = chrome.find_element(By.CSS_SELECTOR, f'[data-job] [data-field="{field}"]').text
    return found


def create(server: Server, words: str, name: str, **changes: object) -> str:
    """Start a job."""
    response = requests.post(
        f"{server.url}/api/datasets", json=body(words, name=name, **changes), timeout=SECONDS
    )
    found: str = response.json()["dataset_id"]
    return found


def endless(server: Server, name: str) -> str:
    """Start a job that runs until it is cancelled, so that a slow browser does not miss it."""
    return create(server, "slow endless", name, top_k=10_000_000)


def complaints(chrome: Chrome) -> list[str]:
    """Return the warnings and errors of the browser's console."""
    log: Any = chrome
    return [entry["message"] for entry in log.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_a_job_is_followed_cancelled_and_retried(server: Server, chrome: Chrome) -> None:
    dataset_id = endless(server, "Bauakten")
    chrome.get(server.url)
    until(chrome, lambda: text(chrome, "state") == "running")
    # The figures change without a reload.
    chrome.execute_script("window.untouched = true")
    until(chrome, lambda: int(text(chrome, "read").replace(",", "")) >= 40)
    shoot(chrome, "jobs-running")
    assert chrome.execute_script("return window.untouched")
    chrome.find_element(By.LINK_TEXT, "Bauakten").click()
    until(chrome, lambda: chrome.current_url.endswith(f"/jobs/{dataset_id}"))
    press(chrome, "Cancel")
    until(chrome, lambda: text(chrome, "state") == "cancelled")
    retry, cancel = (partial(button, chrome, label) for label in ("Retry", "Cancel"))
    until(chrome, lambda: retry().is_displayed() and not cancel().is_displayed())
    shoot(chrome, "job-cancelled")
    press(chrome, "Retry")
    until(chrome, lambda: "attempt 2" in chrome.page_source)
    until(chrome, lambda: text(chrome, "state") == "running")
    assert requests.post(f"{server.url}/api/datasets/{dataset_id}/cancel", timeout=SECONDS).status_code == 200
    until(chrome, lambda: text(chrome, "state") == "cancelled")
    assert complaints(chrome) == []


def test_a_completed_job_shows_counts_rows_and_files(server: Server, chrome: Chrome) -> None:
    script = "<script>document.title = 'broken'</script>"
    dataset_id = create(server, f"Satzung {script}", "Fertig", top_k=1000)
    ended(server.url, dataset_id)
    chrome.set_window_size(1200, 1000)
    chrome.get(f"{server.url}/jobs/{dataset_id}")
    page = chrome.find_element(By.TAG_NAME, "main").text
    assert "below_min_score" in page
    assert script in page
    assert "Fertig" in chrome.title
    assert "sample-" in page
    assert "manifest.json" in page
    assert text(chrome, "rejected") == "283"
    link = chrome.find_element(By.LINK_TEXT, "manifest.json").get_attribute("href")
    assert link is not None
    assert requests.get(link, timeout=SECONDS).json()["totals"]["rows"] == 717
    shoot(chrome, "job-completed")
    assert complaints(chrome) == []


def test_a_failed_job_shows_the_reason(server: Server, chrome: Chrome) -> None:
    dataset_id = create(server, "broken", "Kaputt")
    chrome.get(f"{server.url}/jobs/{dataset_id}")
    until(chrome, lambda: text(chrome, "state") == "failed")
    until(chrome, lambda: "went away in the middle" in text(chrome, "message"))
    shoot(chrome, "job-failed")


@pytest.mark.parametrize("path", ["/", "job"])
def test_pages_fit_a_phone(server: Server, chrome: Chrome, path: str) -> None:
    dataset_id = create(server, "Satzung", f"Donaudampfschifffahrtsgesellschaft {'X' * 60}", top_k=200)
    ended(server.url, dataset_id)
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        chrome.get(server.url + ("/" if path == "/" else f"/jobs/{dataset_id}"))
        width = chrome.execute_script("return document.documentElement.scrollWidth")
        shoot(chrome, f"phone-{path.strip('/') or 'jobs'}")
        assert width <= 360
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_job_can_be_cancelled_by_keyboard(server: Server, chrome: Chrome) -> None:
    dataset_id = endless(server, "Tastatur")
    chrome.get(f"{server.url}/jobs/{dataset_id}")
    until(chrome, lambda: text(chrome, "state") == "running")
    focused = []
    for _ in range(12):
        chrome.switch_to.active_element.send_keys(Keys.TAB)
        focused.append(chrome.switch_to.active_element.text)
        if focused[-1].startswith("Cancel"):
            break
    assert focused[0] == "Skip to the content"
    assert focused[-1].startswith("Cancel")
    outline = chrome.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    until(chrome, lambda: text(chrome, "state") == "cancelled")
    # A screen reader announces the change.
    until(chrome, lambda: chrome.find_element(By.ID, "announcement").get_attribute("aria-live") == "polite")


def test_elements_have_accessible_names(server: Server, chrome: Chrome) -> None:
    ended(server.url, create(server, "Satzung", "Namen", top_k=200))
    chrome.get(server.url)
    bars = chrome.find_elements(By.TAG_NAME, "progress")
    assert bars
    assert all(bar.accessible_name.startswith("Progress of") for bar in bars)
    buttons = [button for button in chrome.find_elements(By.TAG_NAME, "button") if button.is_displayed()]
    assert all(" " in button.accessible_name for button in buttons)
    assert len(chrome.find_elements(By.TAG_NAME, "h1")) == 1
    assert chrome.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_color_schemes(server: Server, chrome: Chrome, scheme: str) -> None:
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    chrome.get(server.url)
    shoot(chrome, f"jobs-{scheme}")
    for selector in ("h1", ".quiet", ".badge", ".figures dt", "a"):
        assert chrome.execute_script(_CONTRAST, selector) >= 4.5, selector


_CONTRAST = """
const light = (color) => {
  const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let node = document.querySelector(arguments[0]);
const ink = light(getComputedStyle(node).color);
while (getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)") node = node.parentElement;
const paper = light(getComputedStyle(node).backgroundColor);
return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
"""
