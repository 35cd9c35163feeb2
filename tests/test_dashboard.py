"""dashboard.html: self-contained, escaped, and alive in a browser."""

import base64
import hashlib
import json
import os
import re
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_results import write_sweep
from rich.console import Console

from fer_ray.analysis.report import write_report

ATTACK = '</script><img src=x onerror="document.title=1">'
MODELS = ("ResNet18", "ConvNeXt-Tiny")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = write_sweep(
        tmp_path_factory.mktemp("ratios"),
        models=MODELS,
        fractions=(0.0, 1.0),
        seeds=(0, 1),
        num_images=200,
        demo=True,
        failed=[("ResNet18", 0.0, 1)],
        question=f"What? {ATTACK}",
        command=ATTACK,
        versions={"torch": ATTACK},
    )
    return write_report(root, console=Console(quiet=True))[-1]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def tags(page):
    parser = Tags()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.found


def test_nothing_is_loaded_from_outside(page):
    found = tags(page)
    assert not [attrs for _, attrs in found if {"src", "href", "srcset", "action"} & set(attrs)]
    policy = next(attrs["content"] for tag, attrs in found if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_only_the_pages_own_scripts_are_allowed_by_their_hash(page):
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in text


def test_hostile_text_stays_text(page):
    assert not [tag for tag, _ in tags(page) if tag == "img"]
    assert page.read_text(encoding="utf-8").count("&lt;/script&gt;&lt;img") >= 3


def test_page_says_what_was_run_and_what_failed(page):
    text = page.read_text(encoding="utf-8")
    for part in ("Rendered demo faces", "7 finished, 1 failed", "0f3c51aa9d2e4b67"):
        assert part in text
    assert "loss is not finite at step 120" in text
    assert '<html lang="en">' in text


def test_page_is_little_larger_than_plotly_itself(page):
    assert page.stat().st_size < 5.4e6


def test_every_choice_of_every_select_has_its_figure(page):
    text = page.read_text(encoding="utf-8")
    views = json.loads(re.search(r'id="views">(.*?)</script>', text, re.DOTALL)[1])
    assert list(views) == ["curves", "heat-map", "learning-curves", "confusion", "class-f1"]
    assert [len(view["patches"]) for view in views.values()] == [4, 4, 7, 14, 2]


def test_style_and_script_files_are_part_of_the_installed_package():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"*.css", "*.js"} <= set(project["tool"]["setuptools"]["package-data"]["fer_ray.analysis"])


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    binary = shutil.which("chromium")
    if binary is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = started.chromium.launch(executable_path=binary, args=sandbox)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def tab(browser, page):
    opened = browser.new_page()
    problems = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    opened.goto(page.as_uri())
    opened.wait_for_selector("section:nth-of-type(6) .main-svg")
    yield opened
    opened.close()
    assert problems == []


def test_each_select_redraws_its_figure_and_its_numbers(tab):
    for section in tab.query_selector_all("section:has(select)"):
        for select in section.query_selector_all("select"):
            before = section.query_selector(".twin").text_content()
            drawn = section.query_selector(".plot").inner_html()
            chosen = select.evaluate("s => s.selectedIndex")
            select.select_option(index=0 if chosen else 1)
            tab.wait_for_timeout(150)
            assert section.query_selector(".twin").text_content() != before
            assert section.query_selector(".plot").inner_html() != drawn


def test_trials_are_sorted_by_number_and_filtered_by_words(tab):
    header = tab.get_by_role("button", name="Accuracy", exact=True)
    header.click()
    cells = "[...document.querySelectorAll('table.trials tbody tr')].map(r => r.cells[5].textContent)"
    shown = tab.evaluate(cells)
    numbers = [float(text) for text in shown if text != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert shown[-1] == "–"
    header.click()
    assert tab.evaluate(cells)[-1] == "–"
    tab.fill("input[type=search]", "resnet18 FAILED")
    assert tab.text_content("output") == "1 of 8"


def test_every_control_has_a_name_that_a_screen_reader_can_say(tab):
    unnamed = """[...document.querySelectorAll('select, input, button, .modebar-btn')]
        .filter(e => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).length"""
    assert tab.evaluate(unnamed) == 0
