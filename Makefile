# Each target is a line or two; what happens is in the Snakefile. `make help` lists them.
STUDY ?= config.yaml
PROFILE ?= default
ARGS ?=
RUN_BY ?=
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo demo-all demo-mechanisms demo-perturbation study plan test report bench bench-patching bench-perturbation bench-memory bench-gpu bench-quantizers demo-model lint schema clean environments test-hub .venv .envs/test .envs/test_hub .envs/bench_patching
.PHONY: crate test-environments .envs/crate
.PHONY: test-kills
.PHONY: test-cluster bench-cluster

ifeq ($(wildcard $(STUDY)),)
$(error there is no study file $(STUDY))
endif
ifeq ($(wildcard profiles/$(PROFILE)/config.yaml),)
$(error there is no profile profiles/$(PROFILE)/config.yaml)
endif

# Without conda, a stand-in makes the same environments with venv and pip, in a folder of its own.
# `make REAL_CONDA= demo` uses the stand-in even where there is a conda.
REAL_CONDA ?= $(filter-out %/envs/standin/conda,$(shell command -v conda 2>/dev/null))
ifeq ($(REAL_CONDA),)
export PATH := $(CURDIR)/envs/standin:$(PATH)
export SNAKEMAKE_CONDA_PREFIX := $(CURDIR)/.envs/standin
else
export SNAKEMAKE_CONDA_PREFIX := $(CURDIR)/.envs/conda
endif
export PYTHONNOUSERSITE := 1
# Modules are compiled when they are first imported, and kept so: a job starts in half the time.
unexport PYTHONDONTWRITEBYTECODE
PYTHON := .venv/bin/python
RUN = $(PYTHON) scripts/study/launch.py --workflow-profile profiles/$(PROFILE) --configfile $(STUDY)
RUN_ALL = $(PYTHON) scripts/study/launch.py --configfile config/demo-all.yaml
# What needs no study, and so no valid config, has a Snakefile of its own.
RUN_OTHER = $(PYTHON) scripts/study/launch.py --snakefile
# Makes folder $@ from envs/$(1).yaml, unless it was already made from a file of this content.
environment = @cmp -s envs/$(1).yaml $@/environment.yaml && $@/bin/python -c "" || { \
	echo "Making $@ from envs/$(1).yaml (1-2 minutes)"; rm -rf $@; \
	conda env create --quiet --file envs/$(1).yaml --prefix $@ && cp envs/$(1).yaml $@/environment.yaml; }

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "STUDY=config/<file>.yaml chooses the study (now $(STUDY)), ARGS= adds options of Snakemake or pytest."

demo: study  ## run the study of the embedded model; nothing else needed

demo-all:  ## the same with every quantizer at 2, 3 and 4 bits
	@$(MAKE) --no-print-directory study STUDY=config/demo-all.yaml

demo-mechanisms:  ## why inputs break: patching, changed residual norms, mixed precision
	@$(MAKE) --no-print-directory study STUDY=config/demo-mechanisms.yaml

demo-perturbation:  ## the lens of perturbation: noise, clipping, non-uniform grids
	@$(MAKE) --no-print-directory study STUDY=config/demo-perturbation.yaml

study: .venv  ## run a study: make study STUDY=config/<file>.yaml; on a cluster: PROFILE=slurm
	@$(RUN) $(ARGS)

plan: .venv  ## say what a study would take, and what it would run and why, without running it
	@$(PYTHON) scripts/study/plan.py --configfile $(STUDY) $(ARGS)

report: study  ## put a finished study's figures and tables into one file, report.html
	@$(PYTHON) -m snakemake --configfile $(STUDY) --report report.html $(ARGS)

crate: study .envs/crate  ## pack a finished study and its provenance as an RO-Crate; RUN_BY="your name"
	@.envs/crate/bin/python scripts/study/records/crate.py --study $(STUDY) $(if $(RUN_BY),--person "$(RUN_BY)")

test: environments .envs/test .envs/crate  ## run all tests
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE .envs/test/bin/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(ARGS)

test-hub: .venv .envs/test .envs/test_hub  ## test what comes from the hub, with a hub on this machine
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE .envs/test/bin/python -m pytest tests/hub --numprocesses=2 $(ARGS)

test-cluster: environments .envs/test  ## test studies on a real SLURM of three nodes, started and stopped here
	@tests/cluster/install
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE .envs/test/bin/python -m pytest tests/cluster $(ARGS)

bench-cluster: environments .envs/test  ## measure what a cluster adds to the time of the embedded study
	@tests/cluster/install
	@PYTHONPATH=scripts:tests/e2e .envs/test/bin/python tests/cluster/overhead.py --study $(STUDY) --output results/benchmarks/cluster.csv

test-environments: .envs/test  ## make every environment from nothing and compare it with its file (15 min)
	@.envs/test/bin/python -m pytest tests/environment_builds.py $(ARGS)

test-kills: environments .envs/test  ## kill a small study 30 times at random, and go on each time
	@PYTHONPATH=scripts .envs/test/bin/python tests/e2e/kills.py $(ARGS)

bench: .venv  ## measure the scorer against a plain forward and lm-evaluation-harness
	@$(RUN_OTHER) rules/bench.smk --forcerun bench $(ARGS)

bench-patching: .venv .envs/bench_patching  ## measure patching against nnsight and plain hooks
	@$(RUN_OTHER) rules/bench.smk bench_patching --forcerun bench_patching $(ARGS)

bench-perturbation: .venv  ## measure many perturbations in one walk against bare forward passes
	@$(RUN_OTHER) rules/bench.smk bench_perturbation --forcerun bench_perturbation $(ARGS)

bench-memory: .venv  ## score a model too large for a memory limit, block by block
	@$(RUN_OTHER) rules/bench.smk bench_memory --forcerun bench_memory $(ARGS)

bench-gpu: .venv  ## measure scoring of a 7B model on a GPU; ARGS='--config options="--layers 16"'
	@$(RUN_OTHER) rules/bench.smk bench_gpu --forcerun bench_gpu $(ARGS)

bench-quantizers: .venv  ## quantize with every method anew and show seconds beside output errors
	@$(RUN_ALL) --forceall --until tabulate_quantization $(ARGS)
	@$(PYTHON) scripts/bench/quantizers.py --study config/demo-all.yaml --output results/benchmarks/quantizers.csv

demo-model: .venv  ## train the embedded model again (hours on a CPU; resumes)
	@$(RUN_OTHER) rules/demo_model.smk $(ARGS)

lint: .venv .envs/test  ## check style: ruff, and Snakemake's own linter
	@.envs/test/bin/ruff check && .envs/test/bin/ruff format --check && $(PYTHON) -m snakemake --lint

schema: .venv  ## write config/schema.json anew after a change of the config's models
	@$(PYTHON) scripts/study/schema.py

environments: .venv  ## make the environments of all rules without running anything
	@$(RUN_ALL) --conda-create-envs-only
	@$(RUN_OTHER) rules/bench.smk find_lm_eval --conda-create-envs-only

clean:  ## remove all results, keeping environments and what branches of the hub were resolved to
	@find results -mindepth 1 -maxdepth 1 ! -name README.md ! -name hub -exec rm -rf {} + ; rm -rf .snakemake report.html

.venv:
	$(call environment,workflow)

.envs/test:
	$(call environment,test)

.envs/test_hub:
	$(call environment,test_hub)

.envs/crate:
	$(call environment,crate)

.envs/bench_patching:
	$(call environment,bench_patching)
