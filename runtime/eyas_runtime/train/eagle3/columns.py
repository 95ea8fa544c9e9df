"""Softmax and argmax over logits whose columns, the draft's vocabulary, are spread over the tensor ranks.

One rank takes torch's own way. Several exchange only numbers per row: the largest logit and its column, and sums.
Every rank gets the same bits.
"""

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.exchange import added, gathered
from eyas_runtime.train.eagle3.grid import Line


def best_of(value: Tensor, column: Tensor, line: Line) -> tuple[Tensor, Tensor]:
    """The largest of all ranks' `value` [m] and its `column` (int64 [m]); of equal ones, that of the lowest rank.

    A value that is not a number wins, as it does on one rank.
    """
    if line.size == 1:
        return value, column
    values, columns = gathered(value, line), gathered(column, line)
    top, at = values[0], columns[0]
    for other, place in zip(values[1:], columns[1:], strict=True):
        better = (other > top) | (other.isnan() & ~top.isnan())
        top, at = torch.where(better, other, top), torch.where(better, place, at)
    return top, at


def softmax(logits: Tensor, line: Line) -> Tensor:
    """Over all ranks' columns of `logits` [m, D / T]: this rank's columns."""
    if line.size == 1:
        return torch.softmax(logits, dim=1)
    return _shifted(logits, line)[0].softmax()


def log_softmax(logits: Tensor, line: Line) -> tuple[Tensor, Tensor]:
    """(logarithm of the softmax, this rank's columns; int64 [m] best column of all ranks)."""
    if line.size == 1:
        found = torch.log_softmax(logits, dim=1)
        return found, found.argmax(dim=1)
    shifted, best = _shifted(logits, line)
    return shifted.log_softmax(), best


class _Shifted:
    """Logits less their row's largest of all ranks, and the sum of their exponentials over all ranks."""

    def __init__(self, values: Tensor, line: Line) -> None:
        self.values = values
        self.total = added(values.exp().sum(dim=1), line)[:, None]

    def softmax(self) -> Tensor:
        return self.values.exp() / self.total

    def log_softmax(self) -> Tensor:
        return self.values - self.total.log()


def _shifted(logits: Tensor, line: Line) -> tuple[_Shifted, Tensor]:
    top, column = logits.max(dim=1)
    top, column = best_of(top, column + line.rank * logits.shape[1], line)
    return _Shifted(logits - top[:, None], line), column


def totals(line: Line, *values: Tensor) -> tuple[Tensor, ...]:
    """Sums over the ranks of several [m] at once."""
    if line.size == 1:
        return values
    return added(torch.stack(values), line).unbind()
