"""The draft as a module: one forward is the whole unrolled objective - plan, K steps, loss.

So everything that touches a parameter runs inside the module's own call, where FSDP has the full parameters in hand.
"""

from eyas_runtime.train.eagle3.batch import Batch
from eyas_runtime.train.eagle3.loss import Result, objective
from eyas_runtime.train.eagle3.parameters import Parameters
from eyas_runtime.train.eagle3.plan import make_plan
from eyas_runtime.train.eagle3.split import split_plan
from eyas_runtime.train.eagle3.teacher import TargetHead
from eyas_runtime.train.eagle3.unroll import unroll


class Draft(Parameters):
    """An EAGLE3 draft."""

    def forward(self, batch: Batch, head: TargetHead, denominator: float) -> Result:
        """The unrolled loss of `batch`, divided by `denominator`, and its counted metrics; see `loss.Result`.

        Every parameter gets a gradient from every call, zeros for a batch of holes, so that ranks with different work
        reduce the same list. Raises `ValueError` if the denominator is not above 0.
        """
        if not denominator > 0:
            raise ValueError(f"the denominator is {denominator}; it is the window's true count, at least 1")
        plan = split_plan(make_plan(batch, self.loss.steps), self.grid.sequence)
        outputs = unroll(self, batch, plan, self.loss.steps)
        return objective(outputs, self.lm_head.weight, batch.target, plan, head, self.loss, denominator)
