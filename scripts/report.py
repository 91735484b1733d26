"""See README.md; every option: python scripts/report.py --help."""

from mirror.cli import report

if __name__ == "__main__":
    report()
