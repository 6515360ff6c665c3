"""SciGPT: pretrain, study and adapt a foundation model for the physical sciences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scigpt.export.forecaster import Forecaster

__version__ = "0.1.0"
__all__ = ["load"]


def load(path: Path | str, device: str | None = None) -> Forecaster:
    """A model to forecast with: `scigpt.load("exports/demo").forecast(dataset, steps=12)`.

    Args:
        path: an export; in a full installation a run or a checkpoint too. `Forecaster.from_pretrained` takes names of the Hugging Face hub.
        device: by default a GPU where there is one.

    Raises:
        UserError: nothing that can be read, or files that were changed.
    """
    from scigpt.export.forecaster import Forecaster  # torch, which `import scigpt` does without

    return Forecaster.open(path, device)
