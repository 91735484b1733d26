"""A run of a sweep before it starts: its overrides, its identity, its folder."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from mirror.config.compose import run_id
from mirror.runs.registry import identity, read_run


@dataclass
class Job:
    """A run to start: its overrides, its identity and its folder."""

    overrides: list[str]
    name: str
    folder: Path
    varied: Collection[str]
    """The keys that differ between the runs."""

    @property
    def axes(self) -> str:
        """Its name for the user: what tells it apart."""
        own = [override for override in self.overrides if override.partition("=")[0] in self.varied]
        return " ".join(own).replace("\\", "") or "the only one"  # Hydra escapes colons and the like

    def begun(self) -> bool:
        """Whether this very run began in its folder before, by its record or by what Hydra wrote first."""
        if (run := read_run(self.folder)) and identity(run["config"]) == self.name:
            return True
        try:
            return run_id(OmegaConf.load(self.folder / ".hydra" / "config.yaml")) == self.name  # type: ignore[arg-type]
        except Exception:  # there is none, or it is not mirror's and may hold anything
            return False
