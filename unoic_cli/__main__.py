"""``python -m unoic_cli``, and the ``unoic`` command."""

from unoic_cli import signals


def main() -> None:
    """Listen to signals first, and load the rest then."""
    signals.listen()
    try:
        from unoic_cli.cli import main as program

        program()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
