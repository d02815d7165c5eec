"""`python -m reader` writes reader/index.html."""

import sys
from pathlib import Path

from benchmark.words import BadInput

from .page import build

if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            raise BadInput(f"no arguments are known, such as {sys.argv[1]}")
        page = build(Path(__file__).parents[1])
    except (BadInput, OSError) as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
    path = Path(__file__).with_name("index.html")
    path.write_text(page, encoding="utf-8", newline="\n")
    print(f"{path}: {len(page.encode()):,} bytes")
