"""``python -m unoic_cli``."""

from unoic_cli.cli import main

if __name__ == "__main__":
    main()
