"""``python -m graphc`` is the command ``graphc``."""

import sys

from graphc.cli import main

if __name__ == "__main__":
    sys.exit(main())
