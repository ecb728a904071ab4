"""README, docs pages and examples are programs: they run, and what they say they print is what they print.

In a code block, ``expression  # -> text`` claims that ``str(expression) == text``. Docstrings are run by pytest.
"""

import os
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import maxaffine

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
BLOCK = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLAIM = re.compile(r"^(?P<expression>\S.*?)\s+# -> (?P<text>.*)$", re.MULTILINE)


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line number and code of each block of a page; the options of a cell (``:tags: ...``) are not code."""
    text = page.read_text()
    found = [(text.count("\n", 0, match.start(1)), match.group(1)) for match in BLOCK.finditer(text)]
    return [(line, re.sub(r"^:.*$", "", code, flags=re.MULTILINE)) for line, code in found]


def run_page(page: Path) -> int:
    """Run a page's blocks one after the other in one namespace, and count the claims that were checked."""
    space: dict[str, object] = {"__name__": "page"}
    checked = 0
    for line, code in blocks(page):
        exec(compile("\n" * line + code, str(page), "exec"), space)
        for claim in CLAIM.finditer(code):
            assert str(eval(claim["expression"], space)) == claim["text"], f"{page.name}: {claim['expression']}"
            checked += 1
    return checked


@pytest.fixture(autouse=True)
def clean_room(tmp_path, monkeypatch):
    """Files that a page writes go to a folder of their own; figures are drawn without a screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.syspath_prepend(ROOT / "examples")
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_page(page):
    checked = run_page(page)
    assert checked > 0 or "# ->" not in page.read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example(example):
    if "MAXAFFINE_ASSETS" in example.read_text() and "MAXAFFINE_ASSETS" not in os.environ:
        pytest.skip("needs data: set MAXAFFINE_ASSETS")
    runpy.run_path(str(example), run_name="__main__")


def test_the_pages_that_must_have_code_do():
    assert {page.name for page in PAGES if blocks(page)} >= {"README.md", "first_steps.md", "add_operator.md"}


def test_a_wrong_claim_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n```python\nx = 2\nx + 1  # -> 3\n```\n```{code-cell}\n:tags: [a]\nx * 2  # -> 5\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md: x \* 2"):
        run_page(page)


def test_every_public_name_is_in_the_reference():
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert [name for name in maxaffine.__all__ if not re.search(rf"\b{name}\b", reference)] == []


def test_relative_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", BLOCK.sub("", page.read_text())):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
