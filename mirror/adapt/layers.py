"""The layers of a backbone, whatever its architecture calls them."""

from torch import nn

from mirror.encoder.encoder import MirrorEncoder
from mirror.errors import MirrorError


def heights(backbone: nn.Module) -> dict[str, int]:
    """How high each weight stands, by name: 0 are the embeddings, 1 to L the layers, and what follows them is at L.

    Layers that share their weights, as ALBERT's, are one.
    """
    stacks: list[str] = []
    for name, module in backbone.named_modules():
        inside = any(name.startswith(f"{stack}.") for stack in stacks)
        if isinstance(module, nn.ModuleList) and not inside:
            stacks.append(name)
    found: dict[str, int] = {}
    above = []
    for name, _ in backbone.named_parameters():
        stack = next((stack for stack in stacks if name.startswith(f"{stack}.")), None)
        if stack is not None:
            found[name] = int(name.removeprefix(f"{stack}.").partition(".")[0]) + 1
        elif "emb" in name or "relative" in name:  # the latter of MPNet: biases of all its layers
            found[name] = 0
        else:
            above.append(name)
    return found | dict.fromkeys(above, max(found.values(), default=0))


def check_layers(count: int, encoder: MirrorEncoder) -> None:
    """Raises MirrorError if ``adapt.layers`` is more than there are."""
    most = max(heights(encoder.backbone).values())
    if count > most:
        raise MirrorError(f"adapt.layers={count} is more than the {most} layers of {encoder.name}: lower it.")
