"""See README.md; every option: python scripts/train.py --help."""

from mirror.cli import train

if __name__ == "__main__":
    train()
