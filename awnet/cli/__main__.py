"""`python -m awnet.cli` is `awnet`."""

from awnet.cli import main

main()
