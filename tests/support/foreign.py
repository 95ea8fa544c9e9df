"""Objects in the job's namespace that look like its children and are not: they must survive everything."""

from eyas_operator import names
from eyas_operator.names import JobIdentity, PodIdentity, Role
from support.model_cluster import ModelCluster, Thing
from support.operator_world import JOB, OTHER_UID

NAMESAKE = JobIdentity(namespace=JOB.namespace, name=JOB.name, uid=OTHER_UID)


def add_foreign_objects(cluster: ModelCluster) -> None:
    """A pod and a claim with this job's labels but another owner, and the children of a namesake."""
    for owner, labels in ((OTHER_UID, JOB), (OTHER_UID, NAMESAKE)):
        for index, role in enumerate((Role.PRODUCER, Role.CONSUMER, Role.METADATA)):
            identity = PodIdentity(role=role, index=index, serial=7, store_epoch=3)
            name = f"foreign-{labels.uid[:4]}-{identity.hostname}"
            manifest = {
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "labels": names.pod_labels(labels, identity),
                    "ownerReferences": [{"uid": owner, "controller": True}],
                },
                "spec": {"hostname": name},
            }
            thing = Thing(kind="Pod", manifest=manifest, uid=f"foreign-{name}", status={"phase": "Running"})
            cluster.things[("Pod", name)] = thing
        claim = names.metadata_claim(labels, 9) + "-foreign"
        marked = names.job_labels(labels) | {names.LABEL_STORE_EPOCH: "1"}
        manifest = {"kind": "PersistentVolumeClaim", "metadata": {"name": claim, "labels": marked}}
        cluster.things[("PersistentVolumeClaim", claim)] = Thing(
            kind="PersistentVolumeClaim", manifest=manifest, uid=f"foreign-{claim}", status={"phase": "Bound"}
        )


def foreign_objects(cluster: ModelCluster) -> set[tuple[str, str, str, str]]:
    """What is left of them."""
    return {
        (kind, name, thing.uid, thing.deleted)
        for (kind, name), thing in cluster.things.items()
        if thing.uid.startswith("foreign-")
    }
