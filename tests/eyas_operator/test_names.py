"""Names stay legal and distinct for every legal job, and labels lead back to the identity."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_operator import names
from eyas_operator.names import JobIdentity, PodIdentity, Role
from support.operator_world import OTHER_UID, UID

LABEL = "abcdefghijklmnopqrstuvwxyz0123456789-"
JOB_NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True)
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
PODS = st.builds(
    PodIdentity,
    role=st.sampled_from(Role),
    index=st.integers(0, 511),
    serial=st.integers(1, 999_999_999),
    store_epoch=st.integers(1, 9_999_999),
)


@given(JOB_NAMES, PODS)
def test_every_name_is_a_dns_label(name: str, pod: PodIdentity) -> None:
    job = JobIdentity(namespace="default", name=name, uid=UID)
    made = [
        pod.pod_name(job),
        pod.hostname,
        names.metadata_claim(job, pod.store_epoch),
        names.config_map(job, pod.store_epoch, pod.serial),
        names.tokens_secret(job),
        names.reader_secret(job),
        names.peers_service(job),
        *(names.service(job, role) for role in Role),
        *(names.policy(job, role.value) for role in Role),
    ]
    for text in made:
        assert 0 < len(text) <= names.NAME_LENGTH_MAX
        assert set(text) <= set(LABEL)
        assert text[0].isalpha(), "the name of a Service begins with a letter, also where that of its job does not"
        assert text[-1] != "-"


@given(JOB_NAMES, PODS)
def test_labels_lead_back_to_the_pod(name: str, pod: PodIdentity) -> None:
    labels = names.pod_labels(JobIdentity(namespace="default", name=name, uid=UID), pod)
    found = names.pod_identity(labels)
    assert found is not None
    assert (found.role, found.serial) == (pod.role, pod.serial)
    told = {"eyas.dev/job-name", "eyas.dev/role", "eyas.dev/replica-index", "eyas.dev/attempt"}
    assert told <= labels.keys(), "automation finds these on every pod"
    assert labels["eyas.dev/attempt"] == str(pod.serial)
    if pod.role is Role.METADATA:
        assert found.store_epoch == pod.store_epoch
    assert labels["app.kubernetes.io/instance"] == name[: names.NAME_LENGTH_MAX].rstrip("-."), "as people know the job"
    assert labels["app.kubernetes.io/component"] == pod.role.value
    assert all(LABEL_VALUE.fullmatch(value) for value in labels.values())


@given(PODS, PODS)
def test_different_pods_have_different_names(one: PodIdentity, other: PodIdentity) -> None:
    def key(pod: PodIdentity) -> tuple[object, ...]:
        index = 0 if pod.role in (Role.METADATA, Role.STORE_MASTER, Role.SWEEPER) else pod.index
        return (pod.role, index, pod.serial, pod.store_epoch if pod.role is Role.METADATA else 0)

    job = JobIdentity(namespace="default", name="j", uid=UID)
    assert (one.pod_name(job) == other.pod_name(job)) == (key(one) == key(other))


def test_a_job_created_again_shares_no_name_with_its_namesake() -> None:
    pod = PodIdentity(role=Role.PRODUCER, index=0, serial=1)
    first = JobIdentity(namespace="default", name="j", uid=UID)
    second = JobIdentity(namespace="default", name="j", uid=OTHER_UID)
    assert pod.pod_name(first) != pod.pod_name(second)


def test_foreign_labels_are_nobody() -> None:
    assert names.pod_identity({}) is None
    assert names.pod_identity({names.LABEL_ROLE: "producer", names.LABEL_INDEX: "x", names.LABEL_ORDINAL: "1"}) is None
    assert names.pod_identity({names.LABEL_ROLE: "king", names.LABEL_INDEX: "0", names.LABEL_ORDINAL: "1"}) is None


@given(PODS)
def test_service_also_finds_a_pod_that_was_made_before_every_pod_said_its_attempt(pod: PodIdentity) -> None:
    job = JobIdentity(namespace="default", name="demo", uid=UID)
    labels = names.pod_labels(job, pod)
    if pod.role is not Role.CONSUMER:
        del labels["eyas.dev/attempt"]
    assert names.pod_selector(job, pod).items() <= labels.items()
    assert names.pod_identity(labels) is not None
    later = replace(pod, serial=pod.serial + 1)
    assert not names.pod_selector(job, pod).items() <= names.pod_labels(job, later).items()


@pytest.mark.parametrize(
    ("version", "label"),
    [("0.1.0", "0.1.0"), ("1.2.3rc1.dev4+g1a2b3c", "1.2.3rc1.dev4_g1a2b3c"), ("1+" + "x" * 80, "1_" + "x" * 61)],
)
def test_any_version_is_a_legal_label(version: str, label: str) -> None:
    assert names.version_label(version) == label
    assert LABEL_VALUE.fullmatch(label)
