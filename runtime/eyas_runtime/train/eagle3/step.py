"""One forward of the unrolled objective: plan, K steps, loss."""

from eyas_runtime.train.eagle3.batch import Batch
from eyas_runtime.train.eagle3.loss import Result, objective
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.plan import make_plan
from eyas_runtime.train.eagle3.split import split_plan
from eyas_runtime.train.eagle3.teacher import TargetHead
from eyas_runtime.train.eagle3.unroll import unroll


def unrolled_loss(draft: Draft, batch: Batch, head: TargetHead, denominator: float) -> Result:
    """Loss and counts of `batch`, called inside `Draft.forward`.

    Every parameter gets a gradient from every call, zeros for a batch of holes, so that ranks with different work
    reduce the same list. Raises `ValueError` if the denominator is not above 0.
    """
    if not denominator > 0:
        raise ValueError(f"the denominator is {denominator}; it is the window's true count, at least 1")
    plan = split_plan(make_plan(batch, draft.loss.steps), draft.grid.sequence)
    outputs = unroll(draft, batch, plan, draft.loss.steps)
    return objective(outputs, draft.lm_head.weight, batch.target, plan, head, draft.loss, denominator)
