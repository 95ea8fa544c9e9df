"""The other arm: the same operator without its eyes. Every pass reads its job and lists the job's own children.

This is what a level-triggered operator does that trusts no cache, the plainest correct way: it decides the same, wakes
for the same events, and pays one read and six lists for each look. Everything else is the code that a cluster runs.
"""

from eyas_operator.backends.kubernetes.cluster import KubernetesCluster
from eyas_operator.cluster import Glimpse
from eyas_operator.process.main import main


def _blind(self: KubernetesCluster, namespace: str, name: str) -> Glimpse | None:
    return None


if __name__ == "__main__":
    KubernetesCluster.glance = _blind  # type: ignore[method-assign]
    main()
