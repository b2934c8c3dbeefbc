"""What users read is run: the README's code with the output printed below it, and every example in a docstring."""

import contextlib
import doctest
import importlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from test_layers import MODULES

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n*^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run in order, in one namespace; a ```text block that follows is what the code prints."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    blocks = BLOCK.findall(text)
    assert blocks
    namespace: dict[str, Any] = {}
    for code, expected in blocks:
        file = tmp_path / "readme.py"
        file.write_text(code)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(code, "readme.py", "exec"), namespace)
        if expected:
            assert shown.getvalue().rstrip() == expected.rstrip()


@pytest.mark.parametrize("name", [n for n, file in MODULES.items() if ">>>" in file.read_text()])
def test_docstrings(name: str) -> None:
    module = importlib.import_module(f"graphc.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0
