"""Products and attention on their fast ways against the plain ones."""

import pytest
import torch
import torch.nn.functional as F

from movies.model import layers
from movies.model.layers import attend, linear


@pytest.mark.parametrize("shape", [(8,), (0, 8), (3, 0, 8), (1, 8), (2, 3, 8)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_is_the_plain_product(generator, shape, has_bias):
    x, weight = torch.randn(shape, generator=generator), torch.randn(5, 8, generator=generator)
    bias = torch.randn(5, generator=generator) if has_bias else None
    expected = F.linear(x.double(), weight.double(), bias.double() if has_bias else None)
    torch.testing.assert_close(linear(x, weight, bias).double(), expected, rtol=1e-5, atol=1e-5)


def test_linear_has_gradients(generator):
    x = torch.randn(3, 8, generator=generator, requires_grad=True)
    weight = torch.randn(5, 8, generator=generator, requires_grad=True)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(3, 8))
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(5, 8))


@pytest.mark.parametrize("sizes", [(2, 3, 5, 5), (1, 2, 70, 90), (2, 2, 0, 4), (1, 6, 100, 1)])
@pytest.mark.parametrize("grad", [True, False])
def test_attention_in_bf16_is_attention(generator, monkeypatch, sizes, grad):
    num, heads, queries, keys = sizes
    monkeypatch.setattr(layers, "ROWS", 32)
    monkeypatch.setattr(layers, "BLOCK", 32 * 90 * 2)  # blocks of two heads and of one
    q = torch.randn(num, queries, heads, 16, generator=generator).transpose(1, 2)
    k, v = torch.randn(2, num, heads, keys, 16, generator=generator)
    with torch.set_grad_enabled(grad):
        half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), F.scaled_dot_product_attention(q, k, v), rtol=0.05, atol=0.03)
