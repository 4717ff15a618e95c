"""The documentation runs, links to files that exist, and names the keys and arrows there are."""

from __future__ import annotations

import ast
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
ARROW_ROW = re.compile(r"^\| `(?P<room>\w+)` \|(?P<rooms>[^|]*)\|$", re.M)
PAGES_OF_METHODS = {
    "salt": "salt.md",
    "pixel_teacher": "pixel_teacher.md",
    "vjepa": "vjepa.md",
    "videomae": "videomae.md",
    "levjepa": "levjepa.md",
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
            assert key.meaning, key.name
            assert re.search(rf"^\| `{key.name}(\.\w+)?` \|", pages[page], re.M), key.name


def test_architecture_page_lists_the_imports_between_rooms() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    text = text[text.index("## Arrows") : text.index("## One run")]
    listed = {
        row["room"]: set(re.findall(r"`(\w+)`", row["rooms"])) for row in ARROW_ROW.finditer(text)
    }
    assert listed == _imports()


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _imports() -> dict[str, set[str]]:
    """Returns the rooms that each room imports, at its top or inside a function."""
    rooms: dict[str, set[str]] = {}
    for file in [*(ROOT / "salt_plugin").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]:
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts == ("salt_plugin", "__init__"):
            continue
        room = parts[1] if parts[0] == "salt_plugin" else parts[0]
        imported = rooms.setdefault(room, set())
        for module in _modules(ast.parse(file.read_text())):
            names = module.split(".")
            if (
                names[0] == "salt_plugin"
                and len(names) > 1
                and names[1] not in (room, "__version__")
            ):
                imported.add(names[1])
    return rooms


def _modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "salt_plugin":
            yield from (f"salt_plugin.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))
