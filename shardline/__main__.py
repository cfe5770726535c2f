"""`python -m shardline`: the command line."""

from shardline.cli.app import main

if __name__ == "__main__":
    main()
