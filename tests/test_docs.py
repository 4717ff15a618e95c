"""The documentation runs, links to files that exist, and names the keys there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from salt_plugin.config.keys import run_keys

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [page for page in [ROOT / "README.md", *DOCS] if page.is_file()]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PAGES_OF_METHODS = {
    "salt": "salt.md",
    "pixel_teacher": "pixel_teacher.md",
    "vjepa": "vjepa.md",
    "videomae": "videomae.md",
    "levjepa": "levjepa.md",
    "finetune": "finetune.md",
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = page.read_text()
    namespace: dict[str, Any] = {"__name__": "docs"}
    for fence in FENCE.finditer(text):
        if fence["info"].strip() == "python":
            # Blank lines in front, so that a traceback gives the line of the page.
            above = text.count("\n", 0, fence.start("code"))
            exec(compile("\n" * above + fence["code"], str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page: Path) -> None:
    targets = [link["target"] for link in LINK.finditer(FENCE.sub("", page.read_text()))]
    broken = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists() or (anchor and anchor not in _anchors(linked)):
            broken.append(target)
    assert not broken


@pytest.fixture(scope="module")
def keys() -> ModuleType:
    """The script that writes the tables of keys."""
    spec = spec_from_file_location("docs_keys", ROOT / "docs" / "keys.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_of_keys_are_those_of_the_schema_and_the_defaults(
    page: Path, keys: ModuleType
) -> None:
    text = page.read_text()
    assert text == keys.renewed(text), "stale; run `python docs/keys.py`"


def test_a_table_that_says_something_else_is_stale(keys: ModuleType) -> None:
    page = (ROOT / "docs" / "methods" / "salt.md").read_text()
    for right, wrong in (("| `null` | `64` |", "| `512` | `64` |"), ("Blocks of both", "Blocks")):
        assert right in page
        assert keys.renewed(page.replace(right, wrong)) == page


def test_every_key_of_a_method_stands_on_its_page(keys: ModuleType) -> None:
    pages = {page.name: page.read_text() for page in keys.pages()}
    for method, page in PAGES_OF_METHODS.items():
        for key in run_keys(method):
            assert re.search(rf"^\| `{key.name}(\.\w+)?` \|", pages[page], re.M), key.name


def test_the_architecture_page_names_lines_as_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.findall(r"`(\w+)`(?:,| \()\s*`([\w/]+\.py):(\d+)`", text)
    assert len(found) > 10
    for name, file, number in found:
        line = (ROOT / "salt_plugin" / file).read_text().splitlines()[int(number) - 1]
        assert re.match(rf"\s*(def|class) {name}\b", line), f"{name} is not at {file}:{number}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
