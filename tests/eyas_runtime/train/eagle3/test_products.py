"""Matrix products: both libraries, any layout, empty operands."""

import pytest
import torch

from eyas_runtime.train.eagle3.products import linear, nn, nt, nt_float, tn

SHAPES = [(3, 4, 5), (64, 3, 2), (0, 4, 5), (1, 1, 1), (33, 100, 7)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_equal_torchs(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, k, n = shape
    torch.manual_seed(0)
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    want = a @ b
    for got in (nn(a, b), nt(a, b.t().contiguous()), nt(a, b.t()), tn(a.t().contiguous(), b), tn(a.t(), b)):
        assert got.dtype is dtype
        assert got.shape == want.shape
        assert torch.allclose(got.double(), want.double(), rtol=2e-2 if dtype is torch.bfloat16 else 1e-4, atol=1e-4)


def test_logits_of_bfloat16_operands_are_not_rounded_to_bfloat16() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 64).bfloat16(), torch.randn(9, 64).bfloat16()
    got = nt_float(a, b)
    assert got.dtype is torch.float32
    torch.testing.assert_close(got, a.float() @ b.float().t(), rtol=1e-5, atol=1e-5)


def test_linear_has_the_gradients_of_a_product() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(linear, (x, weight))


@pytest.mark.parametrize("rows", [5, 50, 400])
def test_a_slice_of_a_joint_tensor_has_the_bits_of_its_copy(rows: int) -> None:
    """Strided rows in any place take the fast kernels: the reference loops add up in another order."""
    torch.manual_seed(0)
    part, other = torch.randn(rows, 48)[:, :16], torch.randn(rows, 24)
    copy = part.contiguous()
    assert not part.is_contiguous()
    assert torch.equal(tn(part, other), tn(copy, other))
    assert torch.equal(tn(other, part), tn(other, copy))
    assert torch.equal(nt(other[:, :16], part), nt(other[:, :16].contiguous(), copy))
    assert torch.equal(nn(other.t(), part), nn(other.t(), copy))
