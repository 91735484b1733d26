"""See README.md; every option: python scripts/pretrain.py --help."""

from mirror.cli import pretrain

if __name__ == "__main__":
    pretrain()
