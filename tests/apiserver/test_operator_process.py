"""The operator as a real process on a real API server: jobs get their children, whoever dies in between."""

from pathlib import Path

import pytest

from support.kube_apiserver import KubeApiServer
from support.kube_operator import Kubelet, status_of, submit
from support.operator_process import operator_process
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver


def test_an_applied_job_gets_its_children_and_a_clean_end_leaves_them(jobs: KubeApiServer, tmp_path: Path) -> None:
    namespace = jobs.namespace()
    kubelet = Kubelet(jobs, namespace)
    with operator_process("op-1", jobs.kubeconfig(namespace=namespace), namespace, tmp_path) as operator:
        operator.leading()
        job = submit(jobs, namespace)
        wait_until(lambda: len(kubelet.pods()) == 1, lambda: f"a pod {operator.lines()[-5:]}")
        assert status_of(jobs, job)["attempt"] == 1
        assert operator.end() == 0
        assert kubelet.pods()
