"""``python -m mirror``: what there is."""

from mirror.version import __version__

COMMANDS = {
    "train": "texts to a measured encoder",
    "evaluate": "an encoder to scores",
    "encode": "texts to vectors",
    "search": "a question to the texts nearest in meaning",
    "export": "an encoder to a smaller one",
    "soup": "several encoders to one, the mean of their weights",
    "report": "runs to tables, pictures and a page",
    "pretrain": "texts to a masked language model",
}

if __name__ == "__main__":
    print(f"mirror {__version__}. The commands, each with --help:\n")
    print("\n".join(f"  mirror-{name:9} {what}" for name, what in COMMANDS.items()))
    print("\nIn Python: mirror.mirror_tune, mirror.MirrorEncoder.")
