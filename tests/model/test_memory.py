"""A field as large as ERA5's, forward and backward on a small machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STEP = """
import resource, sys
sys.path.insert(0, {here!r})
from toys import VOCABULARY, make_batch
from scigpt.model.backbone import ModelConfig, SciGPT
from scigpt.train.objective import group_weight, share_of_loss
batch = make_batch((2, 1, 721, 1440), ("a", "b"), "sphere", count=1)
model = SciGPT(ModelConfig(size="nano"), VOCABULARY)
share_of_loss(model(batch), model.head, group_weight([batch])).loss.backward()
assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
print(model.tokens(batch), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_a_721_by_1440_field_steps_within_16_gib() -> None:
    code = STEP.format(here=str(Path(__file__).parent.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tokens, peak = done.stdout.split()
    assert int(tokens) == 103 * 180  # windows of the default limit: full attention would need 18,540^2 scores a head
    assert float(peak) < 16
