"""Where this is on the Python path, torch reports a CPU with bfloat16 units; ``make test BF16=1`` puts it there.

``trainer.precision=auto`` is bf16 then, in every process of the tests. Torch asks the CPU itself, so no variable would
do.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class Reporting(Loader):
    """Loads ``torch.cpu`` as it is, but for what it reports."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        found = module.get_capabilities
        module.get_capabilities = lambda: {**found(), "avx512_bf16": True}  # type: ignore[attr-defined]


class Finder(MetaPathFinder):
    """Torch is not imported here: not every process needs it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "torch.cpu" else None
        if spec is not None and spec.loader is not None:
            spec.loader = Reporting(spec.loader)
        return spec


sys.meta_path.insert(0, Finder())
