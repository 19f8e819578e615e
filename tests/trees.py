"""Writes the file tree of each package's README from its docstrings: `make tree`.

A file is described once, in its docstring; `tests/test_house.py` holds the READMEs to it.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADING = "## What is where"
# package -> its folder and the README that shows its tree
PACKAGES = {
    "mpsl_train": (ROOT / "mpsl_train", ROOT / "mpsl_train" / "README.md"),
    "mpsl_export": (ROOT / "mpsl_export", ROOT / "mpsl_export" / "README.md"),
    "mpsl_runtime": (ROOT / "runtime" / "mpsl_runtime", ROOT / "runtime" / "README.md"),
}


def purpose(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0].removesuffix(".")


def tree(package: str) -> str:
    """The package's folders and modules, a line each, files before folders."""
    folder = PACKAGES[package][0]
    lines = [f"{package + '/':<28}{purpose(folder / '__init__.py')}"]

    def walk(room: Path, depth: int) -> None:
        indent, width = "  " * depth, 28 - 2 * depth
        for path in sorted(room.glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"{indent}{path.name:<{width - 1}} {purpose(path)}")
        for below in sorted(room.iterdir()):
            if (below / "__init__.py").is_file():
                lines.append(
                    f"{indent}{below.name + '/':<{width - 1}} {purpose(below / '__init__.py')}"
                )
                walk(below, depth + 1)

    walk(folder, 1)
    return "\n".join(lines)


def parts(readme: Path) -> tuple[str, str, str]:
    """A README before its tree, the tree, and what follows."""
    before, after = readme.read_text("utf-8").split(f"{HEADING}\n\n```\n")
    block, rest = after.split("\n```\n", 1)
    return before, block, rest


if __name__ == "__main__":
    for name, (_, document) in PACKAGES.items():
        start, _, end = parts(document)
        document.write_text(f"{start}{HEADING}\n\n```\n{tree(name)}\n```\n{end}", "utf-8")
