"""The old name of `python -m benchmarks.headline_blends`, which it runs."""

import sys

from benchmarks.ranking.headline_blends import main

if __name__ == "__main__":
    print("benchmarks.headline_fusions is now benchmarks.headline_blends", file=sys.stderr)
    main()
