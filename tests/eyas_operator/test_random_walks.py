"""Random histories: anything dies, anything is edited, the operator dies too; then faults stop and it all settles.

The model cluster checks the standing promises at every call. What is checked here is the end: the job runs as asked,
or it ended for a stated reason.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phases
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eyas_contract.states import Gang, Phase
from eyas_operator.api.status import Stage
from support.foreign import add_foreign_objects, foreign_objects
from support.model_cluster import ModelCluster, OperatorDied
from support.operator_world import a_body, a_report

TOTAL_STEPS = 40


class History(RuleBasedStateMachine):
    """One job and everything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        volumes = {
            "models": {"claimName": "models"},
            "data": {"claimName": "data"},
            "checkpoints": {"size": "1Gi", "accessMode": "ReadWriteMany"},
        }
        self.cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 8}, volumes=volumes))
        add_foreign_objects(self.cluster)
        self.foreign = foreign_objects(self.cluster)
        self.step = 0
        self.durable = 0

    # --- time and work ------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0, 200.0]))
    def look(self, seconds: float) -> None:
        self.cluster.now += seconds
        self.cluster.reconcile()

    @rule()
    def kubelet_works(self) -> None:
        self.cluster.kubelet()

    @rule(effects=st.integers(0, 12))
    def look_and_die(self, effects: int) -> None:
        self.cluster.die_before = effects
        try:
            self.cluster.reconcile()
        except OperatorDied:
            return
        self.cluster.die_before = -1

    @rule(steps=st.integers(1, 5), durable=st.booleans())
    def train(self, steps: int, durable: bool) -> None:
        if self.cluster.status.stage is not Stage.RUNNING or not self.gang_runs():
            return
        self.step = min(TOTAL_STEPS, self.step + steps)
        if durable:
            self.durable = self.step
        self.publish()

    @rule()
    def service_goes_away(self) -> None:
        self.cluster.reachable = not self.cluster.reachable

    def gang_runs(self) -> bool:
        status = self.cluster.status
        names = [f"consumer-{index}-a{status.attempt}" for index in range(status.gang.replicas)]
        present = self.cluster.names_of("consumer")
        return bool(names) and all(
            name in present and self.cluster.pod(name).status.get("phase") == "Running" for name in names
        )

    def publish(self) -> None:
        status = self.cluster.status
        self.cluster.report = a_report(
            store_epoch=status.store_epoch,
            attempt=status.attempt,
            phase=Phase.COMPLETE if self.durable >= TOTAL_STEPS else Phase.RUNNING,
            acked_step=self.step,
            durable_step=self.durable,
            checkpoint_directory=f"step-{self.durable}" if self.durable else "",
            incarnation=f"{status.attempt:032x}",
            gang=Gang.OPEN,
            samples_committed=8 * self.step + 8,
            total_steps=TOTAL_STEPS,
        )

    # --- faults -------------------------------------------------------------------------------------------------

    @rule(data=st.data(), code=st.sampled_from([1, 65, 75, 86, 137, 139, 143]))
    def pod_ends(self, data: st.DataObject, code: int) -> None:
        hostname = self.some_pod(data)
        if hostname:
            self.cluster.end(hostname, code)
            self.fall_back(hostname)

    @rule(data=st.data(), how=st.sampled_from(["vanish", "deleted", "unreachable"]))
    def pod_goes(self, data: st.DataObject, how: str) -> None:
        hostname = self.some_pod(data)
        if not hostname:
            return
        self.fall_back(hostname)
        if how == "vanish":
            self.cluster.vanish(hostname)
        elif how == "deleted":
            self.cluster.pod(hostname).deleted = "2030-01-01T00:00:00Z"
        else:
            self.cluster.pod(hostname).node = "unreachable"
            self.cluster.condition(hostname, "DisruptionTarget", "True", "DeletionByTaintManager")

    @rule()
    def metadata_claim_goes(self) -> None:
        name = f"demo-1c9e0b52-metadata-e{self.cluster.status.store_epoch}"
        self.cluster.things.pop(("PersistentVolumeClaim", name), None)

    def some_pod(self, data: st.DataObject) -> str:
        roles = ("producer", "consumer", "metadata", "store-master", "store-node")
        pods = [name for role in roles for name in self.cluster.names_of(role)]
        return data.draw(st.sampled_from(pods)) if pods else ""

    def fall_back(self, hostname: str) -> None:
        if hostname.startswith("consumer"):
            self.step = self.durable

    # --- edits --------------------------------------------------------------------------------------------------

    @rule(producers=st.integers(1, 3), consumers=st.integers(1, 3))
    def resize(self, producers: int, consumers: int) -> None:
        self.cluster.edit(producers={"replicas": producers}, consumers={"replicas": consumers, "processesPerPod": 1})

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.cluster.edit(suspend=suspend)

    # --- promises -----------------------------------------------------------------------------------------------

    @invariant()
    def foreign_objects_are_untouched(self) -> None:
        assert foreign_objects(self.cluster) == self.foreign

    @precondition(lambda self: self.cluster.stored)
    @invariant()
    def conditions_are_exclusive(self) -> None:
        ends = [self.cluster.verdict(kind)[0] for kind in ("Complete", "Failed")]
        assert ends.count("True") <= 1

    def teardown(self) -> None:
        """Faults stop: the job runs as asked, or it ended."""
        cluster = self.cluster
        cluster.die_before = -1
        cluster.reachable = True
        cluster.edit(suspend=False)
        for thing in list(cluster.things.values()):
            if thing.kind == "Pod" and thing.node == "unreachable":
                thing.node = "node-1"
        for _ in range(25):
            cluster.reconcile()
            cluster.kubelet()
            cluster.now += 70
            if self.durable < TOTAL_STEPS:
                self.publish()
        before = cluster.writes
        cluster.reconcile()
        status = cluster.status
        if status.stage is Stage.ENDED:
            # It may have ended (a deadline) in the very last pass: its pods go in the next one.
            cluster.passes(2)
            owned = [role for role in ("producer", "consumer", "metadata") if cluster.names_of(role)]
            assert owned == []
            return
        assert cluster.writes == before, "at rest nothing is written"
        spec = cluster.body["spec"]
        assert len(cluster.names_of("producer")) == spec["producers"]["replicas"]
        attempt = [f"consumer-{index}-a{status.attempt}" for index in range(spec["consumers"]["replicas"])]
        assert cluster.names_of("consumer") == attempt
        assert cluster.verdict("Ready")[0] == "True"


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phases.explicit, Phases.reuse, Phases.generate],
)


@pytest.mark.slow
def test_long_histories() -> None:
    long = settings(max_examples=300, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(History, settings=long)
