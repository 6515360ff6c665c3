"""Attention by plain products, for short sequences on a CPU, is torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scigpt.model.attention import SHORT, attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("count", [1, 4, 16])
def test_products_are_the_fused_kernel(
    count: int, dtype: torch.dtype, tolerance: float, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    q, k, v, gradient = torch.randn(4, 3, 2, count, 8).to(dtype)
    given = [t.clone().requires_grad_() for t in (q, k, v)]
    called: list[object] = []
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args, **options: called.append(args))
    out = attention(*given, causal=causal)
    monkeypatch.undo()
    assert not called, f"{count} is at most {SHORT[dtype]}"
    out.backward(gradient)
    exact = [t.double().requires_grad_() for t in (q, k, v)]
    expected = F.scaled_dot_product_attention(*exact, is_causal=causal)
    expected.backward(gradient.double())
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    for mine, other in zip(given, exact, strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=tolerance, atol=tolerance)
