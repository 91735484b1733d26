"""Where Hydra looks for plugins at every start; mirror's sweepers are in ``mirror.sweeps``."""

from hydra.core.config_store import ConfigStore

from mirror.sweeps import grid, optuna


class Grid(grid.Grid):
    """See ``mirror.sweeps.grid``."""


class OptunaSearch(optuna.OptunaSearch):
    """See ``mirror.sweeps.optuna``."""


# Plain values, not a dataclass: a file under conf/sweep may name the other class, with settings of its own.
_NODE = {"_target_": f"{__name__}.Grid", "max_batch_size": None, "params": None, "grids": None}
ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=_NODE, provider="mirror")
