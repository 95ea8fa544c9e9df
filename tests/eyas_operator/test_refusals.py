"""What the API server refuses for one value, local runs and the operator refuse too, in the same words."""

from pathlib import Path

import pytest
import yaml

from eyas_contract.errors import UserError
from eyas_operator.api.parse import parse
from eyas_operator.backends.local.job import load
from eyas_operator.errors import SpecError
from eyas_operator.render import render
from support.operator_world import ENVIRONMENT, SETTINGS, a_body
from support.refusals import REFUSED, TAKEN, changed

LOCAL = {what: it for what, it in REFUSED.items() if it.local}
CLUSTER = {what: it for what, it in REFUSED.items() if not it.local}


@pytest.mark.parametrize("what", LOCAL)
def test_local_run_refuses_it_with_one_sentence_that_names_the_field(tmp_path: Path, what: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(changed(a_body(), LOCAL[what].changes)))
    with pytest.raises(SpecError) as caught:
        load(file)
    assert caught.value.lines == (f"{LOCAL[what].field}: {LOCAL[what].says}",)


@pytest.mark.parametrize("what", CLUSTER)
def test_operator_refuses_a_path_that_no_pod_would_find_and_parsing_does_not(what: str) -> None:
    body = changed(a_body(), CLUSTER[what].changes)
    parse(body)
    with pytest.raises(UserError) as caught:
        render(body, ENVIRONMENT, SETTINGS)
    assert str(caught.value) == f"{CLUSTER[what].field}: {CLUSTER[what].says}"


@pytest.mark.parametrize("what", TAKEN)
def test_neighbours_of_what_is_refused_become_pods(what: str) -> None:
    body = changed(a_body(), TAKEN[what])
    assert any(made["kind"] == "Pod" for made in render(body, ENVIRONMENT, SETTINGS))


def test_no_template_can_name_a_variable_that_a_pod_or_a_rank_has_of_us() -> None:
    colocated = {"mode": "Colocated", "consumers": {"replicas": 1, "gpus": 1}}
    manifests = [*render(a_body(), ENVIRONMENT, SETTINGS), *render(a_body(**colocated), ENVIRONMENT, SETTINGS)]
    ours = {
        entry["name"] for made in manifests if made["kind"] == "Pod" for entry in made["spec"]["containers"][0]["env"]
    }
    assert ours > {"EYAS_ROLE", "HOME", "CUBLAS_WORKSPACE_CONFIG"}
    for name in ours | {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}:
        template = {"spec": {"containers": [{"env": [{"name": name, "value": ""}]}]}}
        with pytest.raises(SpecError, match=f"{name} is reserved for Eyas"):
            parse(a_body(services={"template": template}))
