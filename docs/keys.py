"""Writes the tables of configuration keys in docs/ anew: `python docs/keys.py`.

A table stands between `<!-- keys: WHAT -->` and `<!-- end of keys -->`. WHAT is a method;
`vjepa2 over vjepa` for the keys in which one differs from another; `compare`, `probe`, `cluster` or
`stage`; or a mark, for the names alone. Meanings and ranges are those of the classes of keys, or of
the docstring of the class that a node names; defaults those of the YAML files, and the source of a
default is the comment beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.utils import get_class
from omegaconf import OmegaConf

from salt_plugin.conf_folder import conf_folder, slurm_folder
from salt_plugin.config.compare import CompareConfig
from salt_plugin.config.evaluation import ProbeConfig
from salt_plugin.config.keys import Key, documented, keys_of, marked, run_keys
from salt_plugin.config.planning import compose_alone
from salt_plugin.config.values import ALIKE, COMPARED, OPERATIONAL, expected
from salt_plugin.studies.cluster import ClusterConfig
from salt_plugin.studies.pipeline import StageConfig

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(r"(<!-- keys: (?P<what>[\w ]+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
DEMO = "salt_plugin.data.DemoSpec"
PLAIN = ("a whole number", "a number", "true or false", "text", "a list", "keys and values")


class Row(NamedTuple):
    """A key of a method, or an argument of a class that it names."""

    name: str
    default: Any
    demo: Any
    source: str
    meaning: str


def pages() -> list[Path]:
    """Returns the pages that may hold tables."""
    return sorted((ROOT / "docs").rglob("*.md"))


def renewed(page: str) -> str:
    """Returns the text of a page with its tables written anew."""
    return TABLE.sub(lambda found: found[1] + _table(found["what"]) + found[3], page)


def _table(what: str) -> str:
    method, _, other = what.partition(" over ")
    files = {
        "compare": (CompareConfig, conf_folder() / "compare" / "base.yaml"),
        "probe": (ProbeConfig, conf_folder() / "probe" / "base.yaml"),
        "cluster": (ClusterConfig, slurm_folder() / "clusters" / "base.yaml"),
    }
    if what in (OPERATIONAL, COMPARED, ALIKE):
        return "\n".join(f"- `{name}`" for name in sorted(marked(what))) + "\n"
    if what == "stage":
        return _lines(
            "Key of a stage|Meaning", [(f"`{k.name}`", _said(k)) for k in keys_of(StageConfig)]
        )
    if what in files:
        schema, file = files[what]
        values, sources = yaml.safe_load(file.read_text()), dict(_sources(file))
        return _lines(
            "Key|Default|Source|Meaning",
            [
                (f"`{k.name}`", _code(values[k.name]), sources.get(k.name, ""), _said(k))
                for k in keys_of(schema)
            ],
        )
    rows = _rows(method)
    if other:
        same = {row.name: row[:4] for row in _rows(other)}
        rows = [row for row in rows if row[:4] != same.get(row.name)]
    return _lines(
        "Key|Default|Demo|Source|Meaning",
        [(f"`{r.name}`", _code(r.default), _code(r.demo), r.source, r.meaning) for r in rows],
    )


@lru_cache
def _rows(method: str) -> list[Row]:
    """Returns the keys of a method, with the arguments of other masks that it may have."""
    own, demo = (
        _nodes(OmegaConf.to_container(compose_alone([f"method={method}", *preset]), resolve=True))
        for preset in ([], ["preset=demo"])
    )
    sources = _method_sources(method)
    keys = {key.name: key for key in run_keys(method)}
    rows: list[Row] = []
    for name, key in keys.items():
        if isinstance(own[name], dict):
            rows += _arguments(key, own[name], demo[name], sources)
        else:
            rows.append(Row(name, own[name], demo[name], sources.get(name, ""), _said(key)))
    chooses = any("masks" in entry for entry in _defaults(method) if isinstance(entry, dict))
    for file in sorted((conf_folder() / "method" / "masks").glob("*.yaml")) if chooses else ():
        node, found = yaml.safe_load(file.read_text()), dict(_sources(file, "method.masks."))
        present = {row.name for row in rows}
        rows += [
            row._replace(meaning=f"With `method/masks={file.stem}`: {row.meaning}")
            for row in _arguments(keys["method.masks"], node, node, found)
            if row.name not in present
        ]
    return rows


def _nodes(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns all nodes of a configuration by their dotted keys."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found[f"{prefix}{name}"] = value
        if isinstance(value, dict):
            found |= _nodes(value, f"{prefix}{name}.")
    return found


def _arguments(key: Key, own: Any, demo: Any, sources: dict[str, str]) -> Iterator[Row]:
    """Yields the class of a node and its arguments."""
    target = own.get("_target_", DEMO)
    meanings = {"_target_": f"{_meaning(key)}: its class", **documented(get_class(target))}
    for name, default in own.items():
        if name not in meanings:
            raise SystemExit(f"{target}: expected a docstring that says what {name} means")
        full = f"{key.name}.{name}"
        yield Row(full, default, demo[name], sources.get(full, ""), meanings[name])


def _method_sources(method: str) -> dict[str, str]:
    """Returns the comments beside values in the files of a method, of which later ones go first."""
    folder = conf_folder() / "method"
    own = folder / f"{method}.yaml"
    prefix = "" if own.read_text().startswith("# @package _global_") else "method."
    found: dict[str, str] = {}
    for entry in _defaults(method):
        if isinstance(entry, dict):
            ((group, name),) = entry.items()
            if group == "masks":
                found |= _sources(folder / "masks" / f"{name}.yaml", "method.masks.")
        elif entry == "_self_":
            found |= _sources(own, prefix)
        else:
            name, _, package = entry.partition("@")
            of_method = package in ("_here_", "method")
            found |= _sources(folder / f"{name}.yaml", "method." if of_method else "")
    return found | ({"trainer.max_steps": found.get("method.default_steps", "")})


def _defaults(method: str) -> list[Any]:
    file = conf_folder() / "method" / f"{method}.yaml"
    return list(yaml.safe_load(file.read_text())["defaults"])


def _sources(file: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the keys of a YAML file, each with the comment on its line."""
    text = file.read_text()
    lines = text.splitlines()

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
        for name, value in node.value:
            comment = lines[name.start_mark.line].partition("  # ")[2]
            yield f"{prefix}{name.value}", comment.strip()
            if isinstance(value, yaml.MappingNode):
                yield from walk(value, f"{prefix}{name.value}.")

    yield from walk(yaml.compose(text), prefix)


def _meaning(key: Key) -> str:
    """Returns what the docstring of the class of a key, or of one it derives from, says of it."""
    name = key.name.rpartition(".")[2]
    for cls in key.owner.__mro__:
        if name in (found := documented(cls)):
            return found[name]
    raise SystemExit(f"{key.owner}: expected a docstring that says what {name} means")


def _said(key: Key) -> str:
    values, meaning = expected(key.kind, with_noun=False), _meaning(key)
    return meaning if values.removesuffix(", or null") in PLAIN else f"{meaning} ({values})"


def _code(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _lines(head: str, rows: list[tuple[str, ...]]) -> str:
    """Returns a table, without columns in which nothing stands."""
    columns = [
        (name, *cells) for name, *cells in zip(head.split("|"), *rows, strict=True) if any(cells)
    ]
    top, *rest = zip(*columns, strict=True)
    lines = [top, ("---",) * len(top), *rest]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def main() -> None:
    """Writes the pages whose tables are stale."""
    for page in pages():
        text = page.read_text()
        if (new := renewed(text)) != text:
            page.write_text(new)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
