"""See README.md; every option: python scripts/soup.py --help."""

from mirror.cli import soup

if __name__ == "__main__":
    soup()
