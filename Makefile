# One command each. `make demo` and `make test` set everything up themselves.
VENV ?= .venv
export VENV
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: setup demo test kills test-all chart crd lint types fmt clean

setup:
	@tools/setup.sh

demo: setup            ## train a real draft end to end on this machine
	@tools/demo.sh

test: setup            ## the fast tier: lint, types, house rules, unit and conformance tests
	@$(MAKE) --no-print-directory lint types
	@$(BIN)/python -m pytest -q -n $(JOBS) -m 'not slow and not apiserver and not chart and not images and not e2e'

kills: setup            ## whole local runs, killed role by role, until the weights agree
	@$(BIN)/python -m pytest -v tests/crash/test_local_run.py

test-all: test         ## the full tier: real processes, real torch, kills, a real API server
	@$(BIN)/python -m pytest -q -m 'slow or apiserver or chart'

chart: setup           ## lint the chart, render it in many ways, and make claims about the objects
	@tools/kube_tools.sh > /dev/null
	@$(BIN)/python -m pytest -q tests/charts

crd: setup             ## write the CustomResourceDefinition into the chart
	@$(BIN)/python -m eyas_operator.api.crd_file charts/eyas/files/crd.yaml

lint: setup
	@$(BIN)/ruff format --check -q operator runtime tests
	@$(BIN)/ruff check -q operator runtime tests
	@$(BIN)/lint-imports --no-cache

types: setup
	@$(BIN)/mypy

fmt: setup             ## format and fix what can be fixed
	@$(BIN)/ruff format -q operator runtime tests
	@$(BIN)/ruff check -q --fix operator runtime tests

clean:
	rm -rf demo build dist .mypy_cache .ruff_cache .pytest_cache

.PHONY: kube-tools images images-smoke lock e2e e2e-up e2e-down

kube-tools:            ## the programs of a test cluster, in one folder, which is printed
	@tools/kube_tools.sh

lock: setup            ## write the images' locks from pyproject.toml and constraints.txt
	@images/lock.sh

images: setup          ## build the images operator, runtime and train; no registry needed
	@images/build.sh

images-smoke: images   ## start every image as restricted as a pod is
	@$(BIN)/python -m pytest -q -m images

e2e-up: setup          ## a kind cluster of three nodes with the images and the chart; prints the kubeconfig's path
	@tools/e2e/up.sh

e2e-down:              ## delete it, and end dockerd if e2e-up started it
	@tools/e2e/down.sh

e2e:                   ## the whole tier: cluster up, every test, cluster down
	@tools/e2e/all.sh
