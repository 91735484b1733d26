"""See README.md; every option: python scripts/export.py --help."""

from mirror.cli import export

if __name__ == "__main__":
    export()
