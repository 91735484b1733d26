"""Masked language modelling (Devlin et al. 2019, section 3.1)."""

from mirror.pretraining.objectives.base import Objective


class MaskedLanguageModelling(Objective):
    """Masked tokens are guessed, and nothing else."""
