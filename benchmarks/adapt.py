"""Which weights learn, and how, at equal budget on the model in this package: what each way is worth and costs.

    python -m benchmarks.adapt --seeds 42,43,44,45,46

Each is Mirror-BERT's default recipe with one change. The rate of each is searched by four trials; the way of
searching and measuring is that of ``benchmarks.side_by_side``.
"""

from benchmarks.side_by_side import Row, side_by_side

SETTINGS: dict[str, tuple[str, ...]] = {
    "full": (),
    "half": ("adapt=half",),
    "freeze the embeddings": ("adapt=freeze",),
    "freeze the embeddings and a layer": ("adapt=freeze", "adapt.layers=1"),
    "reinit the top layer": ("adapt=reinit",),
    "gradual": ("adapt=gradual",),
    "lora": ("adapt=lora",),
    "bitfit": ("adapt=bitfit",),
    "layer_decay 1/2.6": ("optim.layer_decay=0.385",),
    "slanted schedule": ("schedule=slanted",),
    "adafactor": ("optim=adafactor",),
    "lamb": ("optim=lamb",),
}
"""By name, what is set beside the defaults. The first is the reference."""
RATES = ("optim.lr=2.5e-4,5e-4,1e-3,2e-3",)
HIGHER = ("optim.lr=2e-3,5e-3,1e-2,2e-2",)
"""Four trials each."""
FEW_WEIGHTS = ("lora", "bitfit", "lamb")
"""Where few weights learn, or the rate is relative to the weights, it has to be higher."""
ROWS = {name: Row(settings, HIGHER if name in FEW_WEIGHTS else RATES) for name, settings in SETTINGS.items()}

if __name__ == "__main__":
    side_by_side("adapt", ROWS, __doc__)
