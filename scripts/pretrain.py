"""Masked language modelling from raw text: python scripts/pretrain.py data.path=corpus.txt size=mini"""

from mirror.cli import pretrain

if __name__ == "__main__":
    pretrain()
