"""python -m stillhouse: the command line."""

from stillhouse.pipelines.cli.app import main

main()
