# Every target works as the first command: it makes the virtual environment it needs.
#   make test PYTHON=python3.12   uses another Python, in a virtual environment of its own.

PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
PACKAGES := sdk privacy model quantize server cli
SOURCES := $(PACKAGES) tests benchmarks
JOBS ?= 2

# Small matrices and forked test workers: one thread each is faster than all of them fighting.
test test-all: export OMP_NUM_THREADS ?= 1

.PHONY: help demo check test test-all wheel bench bench-quick bench-privacy bench-library docs clean

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.stamp-all  ## Train, quantize and try a real shop's recommendations.
	$(BIN)/hushrec demo

check: $(VENV)/.stamp-dev  ## Lint, format, types, import arrows.
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests
	MYPYPATH=benchmarks:. $(BIN)/mypy --explicit-package-bases benchmarks
	$(BIN)/lint-imports --no-cache

test: check  ## Check, fast tests, the built wheel.
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not slow and not wheel"
	$(MAKE) wheel

test-all: check  ## Check and every test, slow ones too.
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m "not wheel"
	$(MAKE) wheel

wheel: $(VENV)/.stamp-dev  ## Build the wheel once and try it in an empty environment.
	$(BIN)/pytest -m wheel -s tests

bench: $(VENV)/.stamp-bench  ## Measure speed and quality as docs/benchmarks.md states them.
	for part in machine quality pruning cold_items engine reading cold_start; do $(BIN)/python benchmarks/$$part.py || exit 1; done

bench-quick: $(VENV)/.stamp-bench  ## The same with few calls, and one seed of a shop in the box.
	$(BIN)/python benchmarks/machine.py
	$(BIN)/python benchmarks/quality.py --sets online_retail --seeds 0
	$(BIN)/python benchmarks/engine.py --quick --items 10000 100000

bench-privacy: $(VENV)/.stamp-bench hushrec-demo/online_retail.hush  ## Measure privacy and learning together, for hours.
	for part in accounting noise killed_rounds private_step training_audit private_quality train_step one_device releases secure_aggregation server_http big_round killed_server fuzz_server fleet federated_quality candidate_guard; do $(BIN)/python benchmarks/$$part.py || exit 1; done

bench-library: $(VENV)/.stamp-bench  ## Measure a library of the field beside ours, in an environment of its own, for hours.
	for part in field_library; do $(BIN)/python benchmarks/$$part.py || exit 1; done

hushrec-demo/online_retail.hush:
	$(BIN)/hushrec demo

docs: $(VENV)/.stamp-dev  ## Write the generated pages anew.
	$(BIN)/python -m hushrec_cli.reference docs/cli.md
	$(BIN)/python -m hushrec_server.openapi docs/openapi.json

clean:  ## Remove what the targets above made, virtual environments included.
	rm -rf .venv .venv-* dist build .mypy_cache .ruff_cache .hypothesis

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hushrec needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-all $(VENV)/.stamp-dev $(VENV)/.stamp-bench: $(VENV)/.stamp-%: $(VENV)/.stamp-venv pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[$*]"
	@touch $@
