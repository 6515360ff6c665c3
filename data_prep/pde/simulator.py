"""What all simulators share: the sizes of their splits, the keys of their samples and the randomness of each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.sample import Sample
from scigpt.data_prep.source import Plan, SampleRef, Source, Split
from scigpt.errors import UserError

LICENCE = "CC0-1.0"
SPLITS = ("train", "valid", "test", "ood")


def require(condition: bool, message: str) -> None:
    """A user's mistake in the options, told in one sentence."""
    if not condition:
        raise UserError(message)


def require_ranges(options: Any, name: str) -> None:
    """Refuse a range (`NAME_low`, `NAME_high`; `ood_low`, `ood_high`) that is empty or not positive, and an ood range that overlaps."""
    for prefix in (name, "ood"):
        low, high = getattr(options, f"{prefix}_low"), getattr(options, f"{prefix}_high")
        require(
            0 < low <= high < np.inf,
            f"options {prefix}_low={low} and {prefix}_high={high}: expected positive numbers, the first not above the second",
        )
    low, high = getattr(options, f"{name}_low"), getattr(options, f"{name}_high")
    require(
        not options.ood or options.ood_high <= low or options.ood_low >= high,
        f"options ood_low={options.ood_low} and ood_high={options.ood_high} overlap with the training range {low} to {high} of {name}; "
        "set them outside of it, or ood=0",
    )


@dataclass(frozen=True)
class SimulatorOptions:
    """Number of samples of each split, and the seed of them all. `ood` is drawn from outside the training distribution."""

    train: int = 64
    valid: int = 8
    test: int = 8
    ood: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*SPLITS, "seed"):
            require(getattr(self, name) >= 0, f"option {name}={getattr(self, name)} is negative; expected 0 or more")
        require(any(getattr(self, name) for name in SPLITS), "every split is empty; give train, valid, test or ood a size")


class Simulator(Source):
    """A source without inputs. Each sample is drawn from its own random stream, keyed by (seed, split, index).

    So its bytes depend neither on the other samples nor on the order, the process or the sizes of the splits: a corpus
    made larger keeps the samples it had.
    """

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        require(not inputs, f"{self.name} is simulated and reads no files; leave the inputs out")
        super().__init__(inputs, options)

    @abstractmethod
    def ranges(self) -> tuple[str, str]:
        """What the splits of the training distribution and the split outside it hold, in a few words each."""

    @abstractmethod
    def bytes_per_sample(self) -> int: ...

    @abstractmethod
    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        """Draw and solve one problem.

        Args:
            rng: the sample's own random stream.
            outside: draw from outside the training distribution.
            place: what identifies the sample, for its `Origin`.
        """

    def plan(self) -> Plan:
        inside, outside = self.ranges()
        sizes = {name: getattr(self.options, name) for name in SPLITS if getattr(self.options, name)}
        return Plan(
            refs=tuple(
                SampleRef(f"{name}-{i:06d}", name, {"seed": self.options.seed, "split": name, "index": i})
                for name, size in sizes.items()
                for i in range(size)
            ),
            splits=tuple(Split(n, "out", outside) if n == "ood" else Split(n, "in", inside) for n in sizes),
            bytes_per_sample=self.bytes_per_sample(),
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            seed, split, index = ref.spec["seed"], ref.spec["split"], ref.spec["index"]
            rng = np.random.default_rng([seed, SPLITS.index(split), index])
            yield self.sample(rng, split == "ood", f"seed {seed}, {split} {index}")
