"""InfoNCE at several lengths of the vector, so that it may be cut (Matryoshka representation learning)."""

from typing import Annotated

from mirror.config import LossForm, Rule
from mirror.data.batches import MirroredBatch
from mirror.errors import MirrorError
from mirror.losses.base import Components, Loss, check_two_views
from mirror.losses.embedder import Embedder
from mirror.losses.infonce import info_nce


class Matryoshka(Loss):
    """The sum of InfoNCE over the first d dimensions, for each d of ``sizes``, each cut scaled to length 1 anew
    (Kusupati et al. 2022, equation 1, with all weights 1).

    Args:
        embedder: tells the size of its vectors.
        sizes: the lengths d; the whole vector takes part if its size is among them.
        temperature: divides the cosine similarities.
        form: see ``mirror.losses.infonce.InfoNCE``.
        mask_duplicates: texts that stand twice in a batch are not negatives of each other.

    Raises:
        MirrorError: a size is more than the vectors have.
    """

    def __init__(
        self,
        embedder: Embedder,
        sizes: Annotated[
            tuple[int, ...],
            Rule(
                lambda sizes: len({*sizes}) == len(sizes) > 0 and min(sizes) >= 1, "different numbers, at least 1 each"
            ),
        ] = (256, 128, 64, 32),
        temperature: Annotated[float, Rule(lambda t: 0 < t <= 100, "above 0 and at most 100")] = 0.04,
        form: LossForm = LossForm.nt_xent,
        mask_duplicates: bool = True,
    ) -> None:
        super().__init__()
        if max(sizes) > embedder.dimension:
            raise MirrorError(
                f"loss.sizes={[*sizes]}: the vectors have {embedder.dimension} dimensions, so leave {max(sizes)} out."
            )
        self.sizes, self.temperature, self.form, self.mask_duplicates = sizes, temperature, form, mask_duplicates

    def forward(self, embed: Embedder, batch: MirroredBatch) -> Components:
        """The loss, and its part of each size.

        Raises:
            MirrorError: the batch has other than two views of each text.
        """
        check_two_views(batch)
        vectors = embed(batch)  # (2, N, D)
        parts = {
            f"size_{size}": info_nce(
                vectors[..., :size],
                batch.text_ids,
                self.temperature,
                form=self.form,
                mask_duplicates=self.mask_duplicates,
            )
            for size in self.sizes
        }
        return {"loss": sum(parts.values(), vectors.new_zeros(())), **parts}

    def negatives(self, texts: int) -> int:
        """As in InfoNCE."""
        return 2 * texts - 2

    def describe(self) -> str:
        """Sizes, form and temperature."""
        sizes = ", ".join(map(str, self.sizes))
        return f"InfoNCE ({self.form.value}) at {sizes} dimensions, temperature {self.temperature}"
