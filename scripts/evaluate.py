"""See README.md; every option: python scripts/evaluate.py --help."""

from mirror.cli import evaluate

if __name__ == "__main__":
    evaluate()
