"""The documentation runs, links to files that exist, and names the keys and arrows there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from salt_plugin.config import compose

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [page for page in [ROOT / "README.md", *DOCS] if page.is_file()]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
KEY_ROW = re.compile(r"^\| `(?P<key>[\w.]+)` \| (?P<videos>[^|]+) \| (?P<demo>[^|]+) \|", re.M)
ARROW_ROW = re.compile(r"^\| `(?P<room>\w+)` \|(?P<rooms>[^|]*)\|$", re.M)
METHODS = ("salt", "pixel_teacher", "vjepa", "videomae")
OVER_VJEPA = "### What `vjepa2` has instead"
HOST_KEYS = ("input_dir", "checkpoint", "seed", "loader", "trainer", "optimizer", "compute")


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


@pytest.mark.parametrize("method", METHODS)
def test_method_page_lists_every_key_with_its_defaults(method: str) -> None:
    page = ROOT / "docs" / "methods" / f"{method}.md"
    assert _checked_keys(page.read_text().partition(OVER_VJEPA)[0], method) == set(
        _defaults(method)
    )


def test_method_page_lists_what_vjepa2_has_instead() -> None:
    text = (ROOT / "docs" / "methods" / "vjepa.md").read_text().partition(OVER_VJEPA)[2]
    one, two = (
        [_defaults(method, *preset) for preset in ((), ("preset=demo",))]
        for method in ("vjepa", "vjepa2")
    )
    differing = {
        key for key in two[0] if any(a[key] != b[key] for a, b in zip(one, two, strict=True))
    }
    assert _checked_keys(text, "vjepa2") == differing


def test_readme_lists_every_key_but_the_classes_with_its_defaults() -> None:
    left_out = {"method.name", "method.default_steps"}
    keys = {key for key in _defaults("salt") if not key.endswith("._target_")} - left_out
    assert _checked_keys((ROOT / "README.md").read_text(), "salt") == keys


def _checked_keys(text: str, method: str) -> set[str]:
    """Returns the keys in the tables of a page, whose defaults are those in conf."""
    demo, videos = _defaults(method, "preset=demo"), _defaults(method)
    rows = {row["key"]: row for row in KEY_ROW.finditer(text)}
    assert set(rows) <= set(demo)
    stale = {
        key: f"page: {row['videos']} / {row['demo']}; conf: {videos[key]} / {demo[key]}"
        for key, row in rows.items()
        if (_value(row["videos"]), _value(row["demo"])) != (videos[key], demo[key])
    }
    assert not stale
    return set(rows)


def test_architecture_page_lists_the_imports_between_rooms() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    text = text[text.index("## Arrows") : text.index("## One run")]
    listed = {
        row["room"]: set(re.findall(r"`(\w+)`", row["rooms"])) for row in ARROW_ROW.finditer(text)
    }
    assert listed == _imports()


def _defaults(method: str, *overrides: str) -> dict[str, Any]:
    """Returns the leaf keys of a method with their values, those of other masks included."""
    leaves: dict[str, Any] = {}
    for masks in (["method/masks=tube"], ["method/masks=multiblock"], []):
        cfg = compose([f"method={method}", *masks, *overrides])
        tree = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(tree, dict)
        leaves |= _leaves({key: tree[key] for key in (*HOST_KEYS, "method")})
    return leaves


def _leaves(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(cell: str) -> Any:
    container = OmegaConf.to_container(OmegaConf.create(f"value: {cell.strip().strip('`')}"))
    assert isinstance(container, dict)
    return container["value"]


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
