"""`python -m streamq`: the command line."""

from streamq.cli import main

main()
