"""What users read is run: the README's code with the output printed below it, and every example in a docstring."""

import contextlib
import doctest
import importlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from test_layers import MODULES

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n*(?:prints\n\n*)?^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def printed(text: str, folder: Path) -> list[tuple[str, str]]:
    """(output that the README shows, output that its code gives) for each block, run in order in one namespace."""
    namespace: dict[str, Any] = {}
    result = []
    for code, expected in BLOCK.findall(text):
        (folder / "readme.py").write_text(code)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.chdir(folder):
            exec(compile(code, "readme.py", "exec"), namespace)
        result.append((expected, shown.getvalue().rstrip() + "\n"))
    return result


def test_readme(tmp_path: Path) -> None:
    """A ```text block after a ```python block is what the code prints.  `python tests/test_docs.py` brings it up to date."""
    blocks = printed((ROOT / "README.md").read_text(), tmp_path)
    assert blocks
    for expected, shown in blocks:
        assert not expected or expected == shown


@pytest.mark.parametrize("name", [n for n, file in MODULES.items() if ">>>" in file.read_text()])
def test_docstrings(name: str) -> None:
    module = importlib.import_module(f"graphc.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0


if __name__ == "__main__":
    readme = ROOT / "README.md"
    text = readme.read_text()
    with tempfile.TemporaryDirectory() as folder:
        for expected, shown in printed(text, Path(folder)):
            text = text.replace(f"```text\n{expected}```", f"```text\n{shown}```") if expected else text
    readme.write_text(text)
