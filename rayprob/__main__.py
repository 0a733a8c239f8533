"""`python -m rayprob` is `rayprob`."""

from rayprob.cli import main

main()
