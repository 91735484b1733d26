"""Settings that take one of a few words."""

from enum import Enum


# Members are in lower case because OmegaConf matches what a user types with a member's name.
class Task(Enum):
    """What the encoder is for; ``conf/task`` says which choices follow from it."""

    sentence = "sentence"
    phrase = "phrase"
    word = "word"


class Pooling(Enum):
    """How the token vectors of a text become one vector."""

    cls = "cls"
    mean = "mean"
    """Mean over the real tokens, special ones included, as in sentence-transformers."""
    first_last = "first_last"
    """Mean over the tokens and over the first and the last layer (SimCSE's ``avg_first_last``)."""
    last_two = "last_two"
    """Mean over the tokens and over the last two layers."""
    max = "max"
    concat = "concat"
    """[CLS, max, mean], three times as long (ULMFiT, Howard and Ruder 2018, section 3.3)."""
    layers = "layers"
    """Mean over the tokens and over all layers, whose weights are learnt (ELMo, Peters et al. 2018, equation 1)."""
    mean_padded = "mean_padded"
    """The Mirror-BERT authors' "mean": padding counts too. For reproduction only."""


class SpanUnit(Enum):
    """What the span mask counts: the paper masks characters (section 2.1)."""

    character = "character"
    token = "token"
    word = "word"


class EmbeddingChange(Enum):
    """What ConSERT changes of a view's embeddings (Yan et al. 2021)."""

    none = "none"
    feature = "feature"
    """Some features of all its tokens are 0."""
    token = "token"
    """All features of some of its tokens are 0."""
    shuffle = "shuffle"
    """Its tokens have each other's positions."""


class Positive(Enum):
    """Where the second span of a document lies (DeCLUTR, Giorgi et al. 2021)."""

    any = "any"
    """It touches the first one: adjacent, overlapping or within it."""
    adjacent = "adjacent"
    subsumed = "subsumed"


class Sample(Enum):
    """Which texts are taken where the source holds more than ``data.size``."""

    random = "random"
    first = "first"


class LossForm(Enum):
    """InfoNCE with the positive in the denominator (NT-Xent) or without it (decoupled)."""

    nt_xent = "nt_xent"
    decoupled = "decoupled"


class Directions(Enum):
    """Which vectors of a batch InfoNCE contrasts."""

    all = "all"
    """Each of the 2N views with all the others: 2N - 2 negatives (SimCLR, Mirror-BERT)."""
    cross = "cross"
    """The first view of each text with the second views of all: N - 1 negatives (SimCSE)."""
    both = "both"
    """The same from either side, averaged (LaBSE)."""


class TokenizerKind(Enum):
    """BERT's kind of tokenizer, or RoBERTa's; the model's architecture goes with it."""

    wordpiece = "wordpiece"
    bpe = "bpe"
    """On bytes: nothing is unknown."""


class MaskUnit(Enum):
    """What masked language modelling hides as a whole."""

    token = "token"
    word = "word"
    span = "span"
    """Several words in a row (SpanBERT)."""


class Start(Enum):
    """The embeddings that pre-training starts from."""

    random = "random"
    ppmi = "ppmi"
    """Word vectors counted and factorised from the text, and sinusoids for the positions."""


class RankLoss(Enum):
    """How a student learns to rank a list as its teacher does."""

    listmle = "listmle"
    """The probability of the teacher's whole order."""
    listnet = "listnet"
    """The probabilities of being first."""


class Match(Enum):
    """What of a teacher's vectors a student learns."""

    cosine = "cosine"
    """Their directions."""
    mse = "mse"
    """The vectors themselves."""
    similarity = "similarity"
    """The cosines between the texts of a batch; their sizes may differ."""
    scores = "scores"
    """A cross-encoder's scores of pairs."""


class Accelerator(Enum):
    """Where training runs."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class Strategy(Enum):
    """One process, or one for each device."""

    auto = "auto"
    ddp = "ddp"
    fsdp = "fsdp"
    """The weights are sharded across the devices (FSDP2), for models that do not fit on one."""


class Precision(Enum):
    """``auto`` is bfloat16 where the hardware multiplies it natively, else float32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Format(Enum):
    """What ``scripts/export.py`` writes."""

    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"
    static = "static"
    """A bag of token vectors in the place of the encoder, distilled by model2vec: no transformer runs any more."""


class Weights(Enum):
    """How weights are saved."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class Select(Enum):
    """Which weights a run keeps: the last ones, as the paper, or the best on ``eval.validation``."""

    last = "last"
    best = "best"


class Tracker(Enum):
    """Where the curves go."""

    csv = "csv"
    wandb = "wandb"
    tensorboard = "tensorboard"
    mlflow = "mlflow"


class WandbMode(Enum):
    """``auto`` is what WANDB_MODE says, else online where a key is set up and offline elsewhere. Never a prompt."""

    auto = "auto"
    online = "online"
    offline = "offline"
