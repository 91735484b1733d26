"""A text in two templates: the views of PromptBERT."""

from random import Random

from mirror.data.rows import Pair
from mirror.data.views.base import Views
from mirror.encoder.perturb import Perturbation
from mirror.encoder.prompt import Denoising, Template
from mirror.errors import MirrorError


class Prompt(Views):
    """The left view stands in the encoder's own template, the right one in another (Jiang et al. 2022, PromptBERT,
    arXiv 2201.04337; ``train.py`` in kongds/Prompt-BERT). Long texts are cut, the templates are not.

    Args:
        template: of the encoder's pooling at the mask token.
        other: of the right view; holds ``{text}`` and ``{mask}``, once each.
        denoise: subtract what the templates alone would give.

    Raises:
        MirrorError: the encoder pools in another way.
    """

    def __init__(
        self,
        template: str | None,
        other: Template = 'This sentence : "{text}" means {mask}.',
        denoise: bool = True,
    ) -> None:
        if template is None:
            raise MirrorError("aug=prompt reads texts at the mask token of a template: add model/pooling=mask.")
        self.templates, self.denoise = (template, other), denoise

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The pair as it is: its tokens are put into the templates."""
        return pair

    def perturbations(self) -> list[Perturbation]:
        """The denoising."""
        return [Denoising(self.templates)] if self.denoise else []

    def describe(self) -> str:
        """The templates."""
        return f"templates {' and '.join(self.templates)}{', denoised' if self.denoise else ''}"
