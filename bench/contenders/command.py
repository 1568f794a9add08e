"""`hivefold` as it is; then, on a line of standard error, the most memory in bytes that its process took."""

from __future__ import annotations

import sys

from cli.main import run
from hivefold.memory import keep_freed_memory, peak_resident_bytes

if __name__ == "__main__":
    keep_freed_memory()
    code = run(sys.argv[1:])
    print(peak_resident_bytes(), file=sys.stderr)
    sys.exit(code)
