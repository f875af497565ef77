"""The soft Dice loss, written once for every network.

Chapters 04 (``notebooks/04_losses_metrics.ipynb``) and 09 (``notebooks/09_training.ipynb``).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from tunet_lib.files import DataError
from tunet_lib.quiet import keras

DiceOver = Literal["sample", "batch"]


@keras.saving.register_keras_serializable("tunet_lib")
class DiceLoss(keras.losses.Loss):
    """Sum over the channels of -2 Σuv / (Σu + Σv + ε).

    A channel that is predicted perfectly adds -1, one that misses everything adds 0, and so
    does one that holds nothing, whatever is predicted: the loss of two channels lies in [-2, 0].

    Parameters
    ----------
    over
        What Σ runs over. ``"sample"``: the voxels of one patch, then the mean over the
        batch. ``"batch"``: the voxels of all patches of the batch together. At a batch
        size of one they are the same.
    epsilon
        ε, in voxels: keeps the quotient defined where a channel is empty.

    Raises
    ------
    DataError
        `over` is neither of the two.

    Notes
    -----
    Where a patch holds no foreground (all v are 0) the numerator is 0 whatever u is: per
    sample the gradient vanishes, and false positives in that patch cost nothing. Over
    the batch they enlarge a denominator that they share with patches that do hold
    foreground, so they cost something. That is why the course preset, some
    of whose patches hold no tumor, sums over the batch.

    Source
    ------
    Vu et al. 2019, Eq. 1 and 2.
    """

    def __init__(self, over: DiceOver = "sample", epsilon: float = 1e-5) -> None:
        if over not in get_args(DiceOver):
            raise DataError(f"dice over {over!r} is unknown; choose from {get_args(DiceOver)}")
        super().__init__(name="dice_loss")
        self.over = over
        self.epsilon = epsilon

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, as Keras saves them with a compiled network."""
        return {"over": self.over, "epsilon": self.epsilon}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Give the loss of a batch.

        Parameters
        ----------
        y_true
            v, the true masks: ``(batch, *space, channels)``, any dtype, 0 or 1.
        y_pred
            u, the probabilities: same shape, any float dtype, 0 to 1.

        Returns
        -------
        tensor
            Scalar float32, from -channels to 0.
        """
        # In float16, of mixed precision, a sum ends at 65504 voxels.
        v = keras.ops.cast(y_true, "float32")
        u = keras.ops.cast(y_pred, "float32")  # batch, *space, channels
        space = tuple(range(1, len(u.shape) - 1))
        axes = space if self.over == "sample" else (0, *space)
        overlap = keras.ops.sum(u * v, axis=axes)  # batch, channels; over the batch: channels
        total = keras.ops.sum(u, axis=axes) + keras.ops.sum(v, axis=axes)
        per_channel = -2.0 * overlap / (total + self.epsilon)
        return keras.ops.mean(keras.ops.sum(per_channel, axis=-1))
