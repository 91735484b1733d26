"""The published recipes at equal budget on the model in this package: which one is worth what on the test sets.

    python -m benchmarks.published                             # everything: hours on two cores
    python -m benchmarks.published --only simcse esimcse --seeds 42,43,44,45,46

Of a recipe its views, head, loss, pooling at a mask token and post-processing are kept; the pooling else, the schedule
and the batch are those of the defaults, since a two-layer model wants others than BERT-base. Rate and temperature of
each are searched by the same number of trials. How: see ``benchmarks.side_by_side``. Crops and spans are of as many
paragraphs of Wikipedia; RankCSE's two teachers are SimCSE's and ESimCSE's runs of this table, whose training is not
counted. ContraCode is left out: its texts are programs.
"""

from io import TextIOWrapper

from benchmarks.measure import DATA, ROOT
from benchmarks.side_by_side import UNTRAINED, Row, side_by_side, trained
from mirror.data.packed import open_zst
from mirror.data.views.crop import Crop
from mirror.runs.atomic import written_whole

DECAY = "optim.weight_decay=0.01"
"""That of the defaults, for all."""
FOLDER = ROOT / "outputs" / "published"
PARAGRAPHS = FOLDER / "paragraphs.txt"
TEACHERS = {
    "simcse": ("experiment=simcse", DECAY, "optim.lr=1e-3", "loss.temperature=0.07", "model.pooling=first_last"),
    "esimcse": ("experiment=esimcse", DECAY, "optim.lr=1e-3", "loss.temperature=0.07", "model.pooling=first_last"),
}
"""With the rates and temperatures that were chosen on STS-B dev."""
SPAN = 64
"""The most words of a span; the shortest has 8."""
LONGER = (f"data.path={PARAGRAPHS}", "batch.max_tokens=128")

PROJECTOR = ("head.hidden=1024", "head.out=1024")
"""Four times the model's size, as 8,192 are of ResNet-50's 2,048."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "mirror_bert": (),
    "simcse": ("experiment=simcse", DECAY),
    "esimcse": ("experiment=esimcse", DECAY),
    "consert": ("experiment=consert",),
    "promptbert": ("experiment=promptbert", DECAY),
    "simclr": ("experiment=simclr",),
    "moco": ("experiment=moco", "loss.size=2000"),
    "ct": ("experiment=ct", "schedule=stepped", "schedule.every=1000"),
    "ct_in_batch": ("experiment=ct_in_batch",),
    "triplet": ("experiment=triplet",),
    "labse": ("experiment=labse",),
    "barlow": ("experiment=barlow", *PROJECTOR),
    "vicreg": ("experiment=vicreg", *PROJECTOR),
    "rankcse": (
        "experiment=rankcse",
        DECAY,
        f"teacher=[{','.join(str(FOLDER / 'teachers' / name / 'encoder') for name in TEACHERS)}]",
    ),
    "crops": ("experiment=crops", *LONGER),
    "declutr": ("experiment=declutr", "data=file", *LONGER, "aug.min_words=8", f"aug.max_words={SPAN}"),
    "mirror_bert, paragraphs": LONGER,
    "whitening, no training": ("experiment=whitening", UNTRAINED),
    "mirror_bert, whitening": ("post=whitening",),
    "simcse, whitening": ("experiment=simcse", DECAY, "post=whitening"),
    "esimcse, whitening": ("experiment=esimcse", DECAY, "post=whitening"),
    "labse, whitening": ("experiment=labse", "post=whitening"),
    "labse, repetition, whitening": ("experiment=labse", "aug=repetition", "post=whitening"),
    "mirror_bert, dropout alone": ("aug=none",),
    "mirror_bert, queue": ("loss=queue", "loss.in_batch=true", "loss.size=400"),
    "mirror_bert, repetition": ("aug=repetition",),
    "mirror_bert, repetition, whitening": ("aug=repetition", "post=whitening"),
    "labse, repetition": ("experiment=labse", "aug=repetition"),
    "mirror_bert, mask and repetition": ("aug=mirror_repetition",),
    "mirror_bert, margin": ("loss.margin=0.1",),
}
"""By name, what is set. The first is the reference. The queue of MoCo is shortened to what an epoch can fill, and
CT's rate would fall after more steps than there are."""
OWN_POOLING = ("promptbert",)
TEMPERED = ("optim.lr=2.5e-4,5e-4,1e-3,2e-3", "loss.temperature=0.04,0.07")
UNTEMPERED = ("optim.lr=5e-5,1e-4,2.5e-4,5e-4,1e-3,2e-3,4e-3,8e-3",)
WHITENED = ("optim.lr=5e-4,1e-3", "loss.temperature=0.04,0.07", "post.dimensions=192,256")
SHORTENED = ("post.dimensions=64,96,128,160,192,224,240,256",)
"""Eight trials each. Of whitening's dimensions, all or three quarters where rates are searched too."""
NO_TEMPERATURE = ("ct", "ct_in_batch", "triplet", "barlow", "vicreg")


def make_paragraphs() -> None:
    """The first 10,000 paragraphs of the Wikipedia text with room for two crops and two spans, one a line."""
    crop, kept = Crop(), list[str]()
    with TextIOWrapper(open_zst(DATA / "wiki" / "wiki.txt.zst"), encoding="utf-8") as lines:
        for line in lines:
            text = line.strip()
            if len(text.split()) >= 2 * SPAN and len(crop.windows((text, text))) >= 2:
                kept.append(text)
            if len(kept) == 10_000:
                break
    FOLDER.mkdir(parents=True, exist_ok=True)
    with written_whole(PARAGRAPHS) as partial:
        partial.write_text("\n".join(kept) + "\n", encoding="utf-8")


def make_teachers() -> None:
    """RankCSE's."""
    for name, settings in TEACHERS.items():
        trained(FOLDER / "teachers" / name, settings)


def axes(name: str, settings: tuple[str, ...]) -> tuple[str, ...]:
    """What is searched."""
    if UNTRAINED in settings:
        return SHORTENED
    if "post=whitening" in settings:
        return WHITENED
    return UNTEMPERED if name in NO_TEMPERATURE else TEMPERED


ROWS = {
    name: Row(
        (*settings, *(() if name in OWN_POOLING else ("model.pooling=first_last",))),
        axes(name, settings),
        make_teachers if name == "rankcse" else make_paragraphs if set(LONGER) <= set(settings) else None,
    )
    for name, settings in SETTINGS.items()
}

if __name__ == "__main__":
    side_by_side("published", ROWS, __doc__)
