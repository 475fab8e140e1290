# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` do all their own set-up on Debian 12, as root.

PYTEST = .venv/bin/pytest
BESIDE = -n auto --dist worksteal # tests side by side, one per CPU: those without virtual machines
QUICK = -m "not slow" # of those, all but what `make slow` is for
export PYTHONDONTWRITEBYTECODE = # the next run need not compile the tests again
FILES = -n 2 --dist loadfile # two at a time, of different files: those with virtual machines

.PHONY: demo caas-demo test slow setup unit engine contract guest vm e2e coverage lint builder-image build-compare clients agents docker-compare oci-compare oci-validate podman-system conformance storms deaths upgrades chaos cycles calls lab test-kvm test-xen test-kubernetes test-drivers ci-drivers test-caas test-console test-oidc arm64 test-arm64 fuzz bench lock sbom proto man sync-sdk clean

demo: ## set everything up, run a first container, print a transcript
	@scripts/setup demo
	@scripts/demo

test: ## the whole suite
	@scripts/setup test
	$(PYTEST) $(BESIDE) tests/unit tests/engine tests/contract; status=$$?; \
		$(PYTEST) $(FILES) $(QUICK) tests/guest tests/vm tests/e2e && exit $$status

caas-demo: ## two organisations on one daemon: quotas, usage, an invoice, the console
	@scripts/setup demo
	@scripts/caas-demo

slow: ## what the suite leaves out because it takes long: large servers, a gigabyte, systemd; tests of which the suite makes some each day; all trials of tests/engine, a fault at every place
	@scripts/setup test
	HYPER_TEST_EXAMPLES=6 $(PYTEST) $(BESIDE) --trials-every 1 tests/engine/test_faults.py tests/engine/test_deaths.py \
		tests/engine/test_two_verbs.py tests/engine/test_openapi.py; \
		status=$$?; $(PYTEST) $(FILES) -m "slow or turns" --trials-every 1 tests/vm tests/e2e && exit $$status

setup: ## only the set-up
	@scripts/setup test

unit engine contract: ## one tier
	@scripts/setup test
	$(PYTEST) $(BESIDE) tests/$@

guest vm e2e: ## one tier
	@scripts/setup test
	$(PYTEST) $(FILES) $(QUICK) tests/$@

coverage: ## which branches of the engine tests/engine reaches; it fails below 90 %
	@scripts/setup test
	@rm -rf build/coverage && mkdir -p build/coverage
	.venv/bin/coverage run -m pytest -q tests/engine
	.venv/bin/coverage combine -q
	.venv/bin/coverage report
	.venv/bin/coverage json -q -o build/coverage/report.json
	.venv/bin/python scripts/check_branches.py build/coverage/report.json 90

builder-image: ## what builds images, of Debian's dockerd; kept, so a second call has nothing to do
	@scripts/setup test
	.venv/bin/python hyperbuilder/build.py

build-compare: builder-image ## a dozen Dockerfiles by hyperctl build and by the same dockerd outside: trees and configurations; a quarter of an hour
	.venv/bin/python -m tests.builds

clients: ## programs that speak Docker's API: compose, testcontainers of PyPI and npm, dockerode, the command line of dev containers
	@scripts/setup test
	HYPER_TEST_CLIENTS=1 $(PYTEST) -o timeout=1200 tests/e2e/test_docker_compose.py tests/e2e/test_docker_testcontainers.py \
		tests/e2e/test_docker_node.py tests/e2e/test_docker_builds.py

agents: ## agents of LangChain and of OpenAI's package, which a virtual environment of their own has
	@scripts/setup agents
	build/agents/bin/python -m pytest -o timeout=600 tests/e2e/test_agents.py

docker-compare: ## the same commands and requests on Debian's dockerd and on hyperd; docs/docker-beside.md says what differs, and why
	@scripts/setup test
	.venv/bin/python -m tests.beside

oci-compare: ## the same commands of podman with runc and with hyper-runtime; docs/oci-beside-runc.md says what differs, and why
	@scripts/setup test
	.venv/bin/python -m tests.runtimes

oci-validate: ## the validation programs of OCI's runtime-tools with runc and with hyper-runtime; docs/oci-validation.md says which fail, and why; some minutes, and five more the first time
	@scripts/setup test
	.venv/bin/python -m tests.validation

podman-system: ## podman's system tests that need only a runtime, with runc and with hyper-runtime; it writes docs/podman-system.md: which fail, and why; half an hour
	@scripts/setup test
	.venv/bin/python -m tests.podman_system

conformance: ## podman's tests of Docker's API against hyperd; which pass, and why the others do not (docs/conformance.md)
	@scripts/setup test
	.venv/bin/python hyperbuilder/build.py
	.venv/bin/python -m tests.conformance

storms: ## 200 kills of hyperd in the midst of verbs, with a check of all that it owns after each, 200 races; a quarter of an hour
	@scripts/setup test
	HYPER_TEST_STORM=200 HYPER_TEST_RACES=200 HYPER_TEST_KILLS=12 $(PYTEST) -o timeout=3600 \
		tests/e2e/test_storms.py tests/e2e/test_kills.py tests/vm/test_races.py

deaths: ## hyperd killed at every step of its verbs, on real virtual machines; half an hour
	@scripts/setup test
	HYPER_TEST_DEATHS=0 $(PYTEST) -o timeout=3600 -n 2 --dist load tests/e2e/test_deaths.py

REVISION =
upgrades: ## a running pod taken up from the states of all earlier schemas; REVISION=... runs that hyperd first, keeps its state, and upgrades it
	@scripts/setup test
	$(if $(REVISION),.venv/bin/python -m tests.upgrades $(REVISION))
	HYPER_TEST_UPGRADES=1 $(PYTEST) tests/e2e/test_upgrades.py

SEED = 0
MINUTES = 20
chaos: ## random verbs and faults on one host, compared with a model after each; SEED=N repeats a sequence, MINUTES=20
	@scripts/setup test
	.venv/bin/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES)

CYCLES = 1000
PODS = 100
cycles: ## 1000 starts and stops of a container, 100 pods at once: nothing is left of them; CYCLES=1000 PODS=100
	@scripts/setup test
	.venv/bin/python -m tests.chaos.cycles --cycles $(CYCLES) --pods $(PODS)

calls: ## the system calls that QEMU, slirp and the converter of images make, beside those that their filters allow; a minute each
	@scripts/setup test
	.venv/bin/python -m tests.traced

LAB = hyperctl doctor
lab: ## a command in a machine that has KVM, whose processor is emulated: LAB="COMMAND ARGUMENT..."; two minutes
	scripts/lab $(LAB)

TESTS = tests/vm tests/e2e/test_run_rm.py tests/e2e/test_snapshots.py \
	tests/e2e/test_daemon.py::test_containers_outlive_the_daemon
test-kvm: ## the vm tier and a part of the e2e tier with KVM, in that machine; TESTS="tests/vm/test_pods.py -x" for less; hours
	@scripts/setup test
	.venv/bin/python -m tests.lab $(TESTS)

XEN = tests/lab/test_xen.py tests/contract/test_hypervisor.py -k "xen or libxl"
test-xen: ## containers as domains of Xen, by xl and by libvirt, in a machine whose hypervisor is Xen; XEN="tests/lab/test_xen.py -x" for less; an hour
	@scripts/setup test
	.venv/bin/python -m tests.lab --xen $(XEN)

KUBERNETES = tests/kubernetes
test-kubernetes: ## a cluster of Kubernetes 1.20 on this machine whose kubelets run pods by hyperd; KUBERNETES="tests/kubernetes/test_pods.py" for less; a quarter of an hour, and ten minutes more the first time
	@scripts/setup test
	$(PYTEST) -o timeout=900 $(KUBERNETES)

DRIVERS = qemu firecracker libvirt
test-drivers: ## a container of each driver with KVM, in that machine: run, exec, logs, port, volume, stop; some minutes
	@scripts/setup test
	.venv/bin/python -m tests.lab --deadline 1500 --tries 2 --run python3 -m tests.drivers --accelerator kvm $(DRIVERS)

ci-drivers: ## the same in short: one machine of each driver, run, exec, logs, rm
	@scripts/setup test
	.venv/bin/python -m tests.lab --deadline 420 --tries 2 --lenient --run \
		python3 -m tests.drivers --short --accelerator kvm $(DRIVERS)

test-console: ## every page of the console in chromium, wide and narrow, light and dark; SHOTS=DIRECTORY leaves pictures there; some minutes
	@scripts/setup console
	$(PYTEST) -o timeout=600 tests/console

test-caas: ## hyperd in a container, by deploy/caas: the image built on a Debian of mmdebstrap, podman, `docker compose`, pods; five minutes
	@scripts/setup test
	HYPER_TEST_CAAS=1 $(PYTEST) tests/e2e/test_caas_image.py

OIDC = tests/oidc
test-oidc: ## log-in by a certified OpenID provider, npm's oidc-provider: in a browser, by a code, by claims; a minute; node 20 or newer and npm
	@scripts/setup test
	$(PYTEST) $(OIDC)

arm64: ## what pods of arm64 images take: QEMU for that processor, and a kernel, built once in about as long as the other
	@scripts/setup arm64

test-arm64: arm64 ## pods of arm64 images, for real: emulated, where this host has another processor
	HYPER_TEST_ARM64=1 $(PYTEST) -k arm64 tests/contract/test_hypervisor.py tests/vm/test_arm64.py

SECONDS = 60
fuzz: ## decoders of host and guest against made-up input, SECONDS=60 each; FUZZ="dns layers" for less
	@scripts/setup fuzz
	.venv/bin/python -c 'import atheris' 2>/dev/null || .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-fuzz.lock
	.venv/bin/python -m fuzz $(FUZZ) --seconds $(SECONDS)

lint: ## formatters, linters, types, layers
	@scripts/setup test
	$(PYTEST) tests/unit/test_style.py

bench: ## print figures beside those of podman, as medians with ratios
	@scripts/setup test
	.venv/bin/python -c 'import matplotlib' 2>/dev/null || .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-bench.lock
	.venv/bin/python -m bench --charts docs/img
	.venv/bin/python -m bench.waterfall --charts docs/img
	.venv/bin/python -m bench.pods
	.venv/bin/python -m bench.networks
	-.venv/bin/python -m bench.jail
	-.venv/bin/python -m bench.floods
	.venv/bin/python -m bench.hostile

lock: ## write requirements.lock anew, after a change of pyproject.toml
	scripts/lock

sbom: ## write docs/sbom.cdx.json and docs/licenses.md anew: what is shipped, and under which licences
	@scripts/setup test
	scripts/sbom

proto: ## compile CRI's messages anew, after a change of api.proto
	scripts/proto

man: ## write the man pages anew from the command line's own help
	.venv/bin/python scripts/make_man.py

sync-sdk: ## the SDK's synchronous classes, made of the asynchronous ones
	.venv/bin/python scripts/make_sync_sdk.py

clean: ## remove what was built in this tree; caches stay
	rm -rf .venv build dist src/hypercontainer/guest/bin src/hypercontainer/jail/bin
