"""`python -m rayprob` is `rayprob`."""

from rayprob.cli.app import main

main()
