"""What tests of sources share: the real files, the samples of an input, and the sentence with which one is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from scigpt.data.sample import Sample
from scigpt.data_prep.source import Source
from scigpt.errors import UserError


def real(name: str) -> Path:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    return Path(os.environ["SCIGPT_REALDATA"]) / name


def samples_of(source: type[Source], inputs: Path | list[Path], **options: Any) -> list[Sample]:
    """All that hold a value."""
    made = source(inputs if isinstance(inputs, list) else [inputs], source.Options(**options))
    return [s for s in made.samples(made.plan().refs) if s is not None]


def refusal_of(source: type[Source], inputs: Path | list[Path], **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        samples_of(source, inputs, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence
