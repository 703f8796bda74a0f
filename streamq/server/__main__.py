"""`python -m streamq.server`: the keeper, started by `streamq.server.share` and by nobody else."""

from __future__ import annotations

import sys

from streamq.server.keeper import main

if __name__ == "__main__":
    main(sys.argv[1:])
