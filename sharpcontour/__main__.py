"""``python -m sharpcontour``: the command ``sharpcontour``."""

from sharpcontour.app.command import main

if __name__ == "__main__":
    main()
