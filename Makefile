# Everything a developer can do. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
python := .venv/bin/python -P
# ninja would take make's own job slots, whose files a recipe does not have.
pip_wheel := env -u MAKEFLAGS -u MFLAGS .venv/bin/python -m pip wheel -q --no-build-isolation --no-deps -w build/wheels

plugins := $(sort $(patsubst plugins/%/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
files_below = $(shell find $(1) -type f -not -path '*/__pycache__/*' -not -path 'plugins/*/tests/*' -not -path '*/build/*' 2>/dev/null)
c_files = $(shell git ls-files 'native/*.[ch]' 'plugins/*.[ch]')

native_sources := $(call files_below,native/include native/nf native/tables) \
	onvm_sdk/_cdef.py onvm_sdk/config.py meson.build meson.options
core_sources := $(call files_below,native onvm_core onvm_sdk cookiecutter-nf packaging/completion) \
	packaging/meson.build pyproject.toml README.md LICENSE meson.build meson.options

# -- set-up: each step leaves a stamp, so a second run does nothing ---------------------------

stamps := build/stamps
$(shell mkdir -p $(stamps) build/wheels)

$(stamps)/apt: packaging/apt-packages.txt packaging/apt-install
	@packaging/apt-install packaging/apt-packages.txt
	@touch $@

$(stamps)/apt-test: packaging/apt-packages-test.txt packaging/apt-install
	@packaging/apt-install packaging/apt-packages-test.txt
	@touch $@

.venv/ready: packaging/requirements-dev.txt packaging/install $(stamps)/apt
	@echo "set-up: .venv"
	@python=$$(PATH="$${PATH#*:}" packaging/find-python) && "$$python" -m venv --clear .venv
	@packaging/install .venv/bin/python -r packaging/requirements-dev.txt
	@rm -rf build/core build/plugins $(stamps)/core $(stamps)/plugin-*
	@touch $@

$(stamps)/core: $(core_sources) .venv/ready
	@echo "build: onvm"
	@rm -f build/wheels/onvm-*.whl
	@$(pip_wheel) --config-settings=build-dir=$(CURDIR)/build/core .
	@packaging/install .venv/bin/python --no-deps --force-reinstall build/wheels/onvm-*.whl
	@touch $@

# A plugin is built against the installed core; only what it compiles against makes it stale.
.SECONDEXPANSION:
$(stamps)/plugin-%: $$(call files_below,plugins/$$*) $(native_sources) .venv/ready | $(stamps)/core
	@echo "build: onvm-nf-$*"
	@rm -f build/wheels/onvm_nf_$*-*.whl
	@$(pip_wheel) --config-settings=build-dir=$(CURDIR)/build/plugins/$* ./plugins/$*
	@packaging/install .venv/bin/python --no-deps --force-reinstall build/wheels/onvm_nf_$*-*.whl
	@touch $@

.PHONY: packages
packages: $(stamps)/core  ## build and install the core and all plugins
	@$(MAKE) --silent --jobs=2 $(plugins:%=$(stamps)/plugin-%)

# -- what it is for ---------------------------------------------------------------------------

.PHONY: demo
demo: packages  ## run router, firewall, NAT and load balancer over generated traffic, then a scale-out; or over PCAP=file
	@$(python) -m onvm_core.demo $(if $(PCAP),--pcap "$(PCAP)")

# What runs so gets the CPU time that others leave.
idle := $(if $(shell command -v chrt),chrt --idle 0)

.PHONY: test
test: packages $(stamps)/apt-test  ## run all tests: C under sanitizers, the SDK on every Python here, lint, types
	@pythons=$$(packaging/all-pythons); pythons=$${pythons:+--discover $$pythons}; failed=0; \
	$(if $(TOX_ARGS),.venv/bin/tox run $$pythons $(TOX_ARGS) || failed=1,\
	$(idle) .venv/bin/tox run-parallel -p 3 --parallel-no-spinner -m beside $$pythons > build/beside.log 2>&1 & beside=$$!; \
	.venv/bin/tox run -m alone $$pythons || failed=1; \
	.venv/bin/tox run-parallel -p 4 --parallel-no-spinner -m together $$pythons || failed=1; \
	wait $$beside || failed=1; cat build/beside.log); \
	exit $$failed

.PHONY: test-nic
test-nic: packages  ## boot small machines with network cards, and show what passes through each kind (qemu)
	@PYTHONPATH=tests/nic $(python) tests/nic/drivers.py build/nic

.PHONY: fuzz
fuzz: packages $(stamps)/apt-test  ## property and fuzz tests with new random examples, for FUZZ_SECONDS (300)
	@tests/fuzz $(or $(FUZZ_SECONDS),300)

.PHONY: develop
develop: .venv/ready  ## install in place: edits of Python and C count at once; `make packages` undoes it
	@for project in . $(plugins:%=plugins/%); do \
		.venv/bin/python -m pip install -q --no-build-isolation --no-deps -e $$project || exit 1; done
	@rm -f $(stamps)/core $(stamps)/plugin-*

.PHONY: debug
debug: .venv/ready  ## build the core with its invariants checked into build/debug/site, a folder for PYTHONPATH
	@$(python) -m pip install -q --no-build-isolation --no-deps --upgrade -t build/debug/site \
	  --config-settings=setup-args=-Ddebug_asserts=true --config-settings=build-dir=$(CURDIR)/build/debug/meson .

.PHONY: bench
bench: packages  ## run all benchmarks, or SUITE=hop
	@.venv/bin/onvm bench $(or $(SUITE),all)

.PHONY: lint
lint: .venv/ready  ## check style of Python and C, and who imports whom
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/clang-format --dry-run -Werror $(c_files)
	@PYTHONPATH=. .venv/bin/lint-imports

.PHONY: types
types: packages  ## check types
	@.venv/bin/mypy

.PHONY: format
format: .venv/ready  ## put Python and C into house style
	@.venv/bin/ruff check -q --fix-only . ; .venv/bin/ruff format -q .
	@.venv/bin/clang-format -i $(c_files)

.PHONY: wheels
wheels: packages  ## build wheels in dist/ that run where no DPDK is installed
	@packaging/repair-wheels build/wheels dist

.PHONY: wheels-check
wheels-check: wheels  ## install dist/ in a bare Debian root and run the demo chain there (root)
	@tests/packaging/bare-root dist

.PHONY: lock
lock:  ## pin and hash what .venv holds (asks the package index; needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url packaging/requirements-dev.in -o packaging/requirements-dev.txt
	@sed -n 's/ *\\$$//; /^[^ #].*==/p' packaging/requirements-dev.txt > packaging/constraints.txt

.PHONY: docs
docs: packages  ## build the documentation into build/site; warnings are errors
	@$(python) -m sphinx -q -W --keep-going docs build/site
	@echo "build/site/index.html"

.PHONY: changelog
changelog: .venv/ready  ## show what the next section of CHANGELOG.md will say
	@.venv/bin/towncrier build --draft --version next

.PHONY: clean
clean:  ## remove everything that was built, and .venv
	@rm -rf build dist .venv .tox .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
