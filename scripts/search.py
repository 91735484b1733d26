"""See README.md; every option: python scripts/search.py --help."""

from mirror.cli import search

if __name__ == "__main__":
    search()
