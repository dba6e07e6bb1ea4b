"""Run the first Python example of a document, exactly as it stands there: python readme_example.py README.md"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def example(document: Path) -> str:
    """Return the text of the document's first block of Python."""
    block = re.search(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None, f"expected an example in {document}"
    return block.group(1)


if __name__ == "__main__":
    exec(compile(example(Path(sys.argv[1])), sys.argv[1], "exec"), {"__name__": "__main__"})
