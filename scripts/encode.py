"""See README.md; every option: python scripts/encode.py --help."""

from mirror.cli import encode

if __name__ == "__main__":
    encode()
