"""`python -m cryfed`."""

from cryfed.cli.main import main

main()
