"""Distillation on the model in this package: one layer that follows two, beside one layer tuned directly.

    python -m benchmarks.distil --seeds 42,43,44,45,46

The teacher is Mirror-BERT's default recipe, one run. Rates are searched and tests read as in
``benchmarks.side_by_side``; the teacher's training is not counted.
"""

from benchmarks.measure import ROOT
from benchmarks.side_by_side import Row, side_by_side, trained

FOLDER = ROOT / "outputs" / "distil"
TEACHER = FOLDER / "teachers" / "42"
TEACHERS = [FOLDER / "teachers" / str(seed) for seed in (42, 43, 44)]
ONE_LAYER = "model.keep_layers=[0]"
OF_TEACHER = (f"model.path={TEACHER / 'encoder'}", ONE_LAYER, "loss=distil", f"teacher={TEACHER / 'encoder'}")
SETTINGS: dict[str, tuple[str, ...]] = {
    "one layer, tuned directly": (ONE_LAYER,),
    "two layers, tuned directly": (),
    "one layer of the teacher, no training": (*OF_TEACHER, "trainer.max_steps=1", "optim.lr=1e-9"),
    "one layer of the teacher, cosine": OF_TEACHER,
    "one layer of the teacher, mse": (*OF_TEACHER, "loss.match=mse"),
    "one layer of the teacher, similarity": (*OF_TEACHER, "loss.match=similarity"),
    "one layer of the untouched model, cosine": (ONE_LAYER, "loss=distil", f"teacher={TEACHER / 'encoder'}"),
    "two layers, three teachers, similarity": (
        "loss=distil",
        "loss.match=similarity",
        f"teacher=[{','.join(str(folder / 'encoder') for folder in TEACHERS)}]",
    ),
}
"""By name, what is set beside the defaults. The first is the reference."""
RATES = ("optim.lr=2.5e-4,5e-4,1e-3,2e-3",)


def make_teachers() -> None:
    """The default recipe with three seeds."""
    for folder in TEACHERS:
        trained(folder, (f"seed={folder.name}", "loss.temperature=0.07"))


ROWS = {
    name: Row(settings, () if "optim.lr=1e-9" in settings else RATES, make_teachers)
    for name, settings in SETTINGS.items()
}

if __name__ == "__main__":
    side_by_side("distil", ROWS, __doc__)
