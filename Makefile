# The commands of this repository. `make` lists them; each sets up .venv first, once.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo up test sim truth soak mutations triton clients fuzz check failover bench bench-bounded protos format lock

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Set up .venv (done by every other command when needed)

$(READY): pyproject.toml uv.lock requirements.lock scripts/setup.sh
	@scripts/setup.sh

demo: $(READY) ## Run the main job on a fleet of three nodes, with two kills, and tell what happened
	@$(BIN)/python -m examples.demo

up: $(READY) ## Leave a fleet running in this terminal
	@$(BIN)/hivefold up

test: $(READY) ## Run all tests
	@$(BIN)/pytest

sim: $(READY) ## Simulate whole fleets with faults: SEEDS=2000 many, SEED=7 one again with its trace
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED) $(if $(KEEP),--keep $(KEEP)) $(if $(PLAIN),--plain $(PLAIN)),--seeds $(or $(SEEDS),200) $(if $(TALLY),--tally $(TALLY)) $(if $(AT_MOST),--at-most $(AT_MOST))) $(if $(BUG),--bug $(BUG))

soak: $(READY) ## Kill and pause the processes of a real fleet: KILLS=1000 for long
	@$(BIN)/python -m tests.soak --kills $(or $(KILLS),100) --seed $(or $(SEED),1)

truth: $(READY) ## Compare the fakes with a real nats-server: OPERATIONS=20000 at random, SEED=7 one script again
	@$(BIN)/python -m tests.truth $(if $(SEED),--seed $(SEED),--operations $(or $(OPERATIONS),20000) $(if $(FIRST),--first $(FIRST)) $(if $(AT_MOST),--at-most $(AT_MOST)))

mutations: $(READY) ## Mutate exported logs and verify them: all must be caught where they are; COUNT=100000
	@$(BIN)/python -m tests.mutations --count $(or $(COUNT),100000)

triton: $(READY) ## Set up .triton-venv, in which Triton's own client tries the nodes' inference
	@scripts/triton.sh

fuzz: $(READY) ## Fuzz what reads bytes: TARGET=passport, scan or request; SECONDS=600 for long; by coverage where Atheris is installed
	@$(BIN)/python -m tests.fuzz --target $(or $(TARGET),passport) --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

clients: $(READY) ## Set up .clients: the example clients in other languages, with their packages
	@scripts/clients.sh

check: $(READY) ## Check format, lint, types, imports, protos, generated code and house rules
	@scripts/check.sh

failover: $(READY) ## Measure how long a group of coordinators is without a leader; result in bench/FAILOVER.md
	@$(BIN)/python -m bench.failover --runs $(or $(RUNS),50)

bench-bounded: $(READY) ## Measure starts over logs of up to ten million events; result in bench/RESTART.md
	@$(BIN)/python -m bench.bounded --rounds $(or $(RUNS),5)

bench: $(READY) ## Measure, against peers; results in bench/RESULTS.md
	@$(BIN)/python -m bench

protos: $(READY) ## Generate hivefold/v1 from protos/
	@$(BIN)/buf lint && $(BIN)/python scripts/gen_protos.py

format: $(READY) ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: ## Lock the dependencies anew after a change in pyproject.toml (needs uv)
	@uv lock && uv export --quiet --locked --all-groups --all-extras --no-emit-project --no-annotate --no-header -o requirements.lock
