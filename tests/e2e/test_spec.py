"""What people type and read: refusals that name the field, columns, events, explanations."""

import json
from typing import Any

import pytest
import yaml

from support.cluster_drill import SAMPLES, STEPS, drill, forgotten, wait_for
from support.cluster_job import applied
from support.kubectl import Kubectl, Refused
from support.refusals import REFUSED

pytestmark = pytest.mark.e2e
BAD: dict[str, tuple[dict[str, Any], *tuple[str, ...]]] = {
    "a number out of range": ({"training.windowSize": 0}, "spec.training.windowSize"),
    "a word that is none": ({"store.backend": "Floppy"}, "spec.store.backend"),
    "a quantity that is none": ({"store.maxResidentBytes": "much"}, "spec.store.maxResidentBytes"),
    "a misspelt field": ({"training.learningrate": 1}, "spec.training.learningrate"),
    "a missing field": ({"target.model": None}, "spec.target.model"),
    "a folder of the node": (
        {"producers.template.spec.volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        "spec.producers.template.spec.volumes[0].hostPath",
    ),
    "several consumers on a volume for one": (
        {"consumers.replicas": 2, "volumes.checkpoints.accessMode": "ReadWriteOnce"},
        "spec.volumes.checkpoints.accessMode: must be ReadWriteMany when there are several consumers",
    ),
    "two kinds of data": ({"data.features": ["/data/f"]}, "spec.data: needs exactly one of prompts and features"),
}


BAD |= {what: (dict(it.changes), it.field, it.says) for what, it in REFUSED.items()}


@pytest.mark.parametrize("what", BAD)
def test_apply_of_a_bad_spec_is_refused_by_the_api_server_with_the_fields_name(kubectl: Kubectl, what: str) -> None:
    changes, *says = BAD[what]
    body = drill("spec-bad", **changes)
    with pytest.raises(Refused) as refused:
        kubectl.run("apply", "-f", "-", given=yaml.safe_dump(body))
    for words in says:
        assert words in str(refused.value)
    assert forgotten(kubectl, "dtj", "spec-bad")


def test_a_change_of_what_fixes_the_result_is_refused_and_changes_nothing(kubectl: Kubectl) -> None:
    name = "spec-fixed"
    with applied(kubectl, drill(name, suspend=True)):
        for spec, says in (
            ({"training": {"learningRate": 0.5}}, "spec.training"),
            ({"data": {"seed": 1}}, "spec.data"),
            ({"evaluation": {"prompts": ["/data/held-out.jsonl"], "everySteps": 5}}, "spec.evaluation"),
        ):
            before = kubectl.get("dtj", name)["spec"]
            with pytest.raises(Refused) as refused:
                kubectl.run("patch", "dtj", name, "--type=merge", "-p", json.dumps({"spec": spec}))
            assert says in str(refused.value)
            assert "immutable" in str(refused.value) or "cannot change" in str(refused.value)
            assert kubectl.get("dtj", name)["spec"] == before


def test_columns_and_events_tell_the_story_of_a_job_whose_consumer_was_deleted(kubectl: Kubectl) -> None:
    name = "spec-told"
    with applied(kubectl, drill(name)) as job:
        job.wait_for_step(1)
        kubectl.run("delete", "pod", job.pods("consumer")[0]["metadata"]["name"], "--force", "--grace-period=0")
        wait_for(job, "attempt 2", lambda it: it["attempt"] == 2)
        job.complete(300)
        head, row = (line.split() for line in kubectl.run("get", "dtj", name).splitlines())
        assert head == ["NAME", "STATE", "ATTEMPT", "RESTARTS", "STEP", "ACKED", "LAG", "AGE"]
        assert row[:-1] == [name, "Complete", "2", "1", str(STEPS), str(SAMPLES), "0"]
        described = kubectl.run("describe", "dtj", name)
    events = described.partition("\nEvents:")[2]
    for reason in ("JobStarted", "ConsumerGangRestarted", "JobCompleted"):
        assert reason in events
    assert "PodDeleted" in next(line for line in events.splitlines() if "ConsumerGangRestarted" in line)


def test_explain_finds_sentences_for_the_fields_of_training(kubectl: Kubectl) -> None:
    text = kubectl.run("explain", "dtj.spec.training")
    schema: dict[str, Any] = kubectl.get("crd", "disaggtrainingjobs.eyas.dev")
    versions = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = versions["properties"]["spec"]["properties"]["training"]["properties"]
    for field, told in fields.items():
        assert field in text
        assert told["description"].split()[0] in text.partition(f"{field}\t")[2], f"{field} has no sentence"
    assert "no description" not in text
