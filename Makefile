# Each target sets up .venv by itself: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt
TORCH  := torch==2.13.0
BUILD  := $(shell sed -n 's/^\(nanobind\|scikit_build_core\|cmake\|ninja\|setuptools\)==.*/&/p' constraints.txt)
# onnxruntime and onnxruntime-gpu overwrite each other: exactly one, by what the machine has.
ORT    := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
DEMO   := runs/demo
COMMA  := ,
export MPSL := $(BIN)/mpsl

.PHONY: FORCE help setup peers aarch64 boards browser demo test test-runtime sanitize sanitize-threads fuzz check bench bench-train bench-events bench-live gpu tree clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')"

# torch first and alone: asked for by another package, a newer build with CUDA would come instead.
$(VENV)/.installed: pyproject.toml constraints.txt runtime/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) $(BUILD)
	$(PIP) --no-build-isolation -e './runtime[test,plot,view]' -e '.[$(ORT),dev]'
	touch $@

# An editable install goes by the list of modules that it found: one more or less, and it is made anew.
MODULES := find mpsl_train mpsl_export runtime/mpsl_runtime -name '*.py' | sort
$(VENV)/.modules: FORCE | $(VENV)/.installed
	@$(MODULES) | cmp -s - $@ || $(MODULES) > $@

$(VENV)/.native: $(VENV)/.installed $(VENV)/.modules runtime/CMakeLists.txt $(wildcard runtime/src/* runtime/src/*/*) \
		$(wildcard mpsl_train/src/*)
	$(PIP) --no-build-isolation --no-deps -e ./runtime -e .
	touch $@

setup: $(VENV)/.native ## everything that the commands need, in .venv

# --no-deps: norse declares torchvision, which only its examples use. It comes as source, so what
# builds it is pinned too, and the build must not be isolated from those pins.
PEERS := $(BIN)/pip install -q --disable-pip-version-check --no-deps -c constraints-peers.txt
READERS := aedat dv-processing event-stream evt3 evutils expelliarmus faery llvmlite numba apsw rosbags ruamel.yaml
$(VENV)/.peers: constraints-peers.txt $(VENV)/.installed
	$(PEERS) nirtorch setuptools-scm snntorch spikingjelly loguru neurobench sinabs pbr snn-mlir
	$(PEERS) $(READERS)
	$(PEERS) --no-build-isolation norse
	$(PEERS) selenium websocket-client imageio-ffmpeg
	$(PIP) ray
	touch $@

peers: $(VENV)/.peers ## other frameworks, to read our files back and to train against; Ray (tests only)

# Root, as in CI's containers, gets them from Debian's or Ubuntu's packages. Nobody else is asked, and
# no failure counts: without them the tests skip and say so. $(1): what holds where they are there,
# $(2): their packages, $(3): what is not tested without.
define debian-packages
	if { $(1); } >/dev/null; then \
		:; \
	elif [ "$$(id -u) $$(uname -m)" = "0 x86_64" ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ timeout 300 apt-get -qq update; timeout 600 apt-get -qq -y --no-install-recommends install $(2); } \
			|| echo "$(2) cannot be installed: tests for $(3) will skip"; \
	else \
		echo "no $(2): tests for $(3) will skip"; \
	fi >&2
endef

aarch64: ## a compiler and an emulator for aarch64, where they can be installed (tests only)
	@$(call debian-packages,command -v aarch64-linux-gnu-g++ && { command -v qemu-aarch64 || command -v qemu-aarch64-static; },\
		g++-aarch64-linux-gnu qemu-user,aarch64)

boards: ## clang, compilers and emulators for microcontrollers, where they can be installed (tests only)
	@$(call debian-packages,command -v clang && command -v qemu-system-arm && command -v qemu-system-riscv32 \
		&& command -v arm-none-eabi-gcc && command -v riscv64-unknown-elf-gcc,\
		clang gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm gcc-riscv64-unknown-elf \
		picolibc-riscv64-unknown-elf qemu-system-misc,microcontrollers)

browser: ## Chromium and its driver, where they can be installed (tests only)
	@$(call debian-packages,command -v chromium && command -v chromedriver,chromium chromium-driver,the page in a browser)

demo: setup ## data, training, export, proof and run, in one go
	$(MPSL) data make dvs-digits --data runs/data/dvs-digits
	$(MPSL) train dvs-digits --data runs/data/dvs-digits --out $(DEMO) \
		$$(test -f $(DEMO)/last.ckpt && ! test -f $(DEMO)/report.json && echo --resume)
	$(MPSL) export $(DEMO) --format nir
	$(MPSL) export $(DEMO) --format onnx
	$(MPSL) verify $(DEMO) --data runs/data/dvs-digits
	$(MPSL) run $(DEMO)/model.nir runs/data/dvs-digits/Test --json | tail -n 1
	$(MPSL) run $(DEMO)/model.nir "$$(ls runs/data/dvs-digits/Test/3/*.bin | head -n 1)" --plot $(DEMO)/run.png
	@echo
	@echo "Pictures: $(DEMO)/report.png (training), $(DEMO)/run.png (one recording)"

# Most tests use one core: parts share two, the longest first. The engine's own tests run where
# nothing else is installed and under sanitizers, and not a third time. A new folder is in the last part.
PART_documents := tests/models $(wildcard tests/test_*.py)
PART_runtime := tests/runtime --ignore=tests/runtime/run/engine
PART_train := tests/train
PART_rest := $(filter-out tests/__pycache__ tests/models tests/runtime tests/train,$(patsubst %/,%,$(wildcard tests/*/)))
PARTS := documents runtime train rest

test: check setup peers aarch64 boards browser build/address/.built ## everything CI runs
	$(MAKE) -j2 --output-sync=target sanitize test-documents-part test-runtime $(filter-out test-documents-part,$(PARTS:%=test-%-part))

.PHONY: $(PARTS:%=test-%-part)
$(PARTS:%=test-%-part): test-%-part: setup
	$(BIN)/python -m pytest -q $(PART_$*)

# The runtime must pass with nothing else installed: this is what an edge box has.
test-runtime: .venv-runtime/.installed ## the runtime's tests where nothing else is installed
	.venv-runtime/bin/python -m pytest tests/runtime -q --ignore=tests/runtime/run/aarch64

.venv-runtime/.installed: constraints.txt runtime/pyproject.toml runtime/CMakeLists.txt \
		$(wildcard runtime/src/* runtime/src/*/*) $(wildcard runtime/mpsl_runtime/*.py runtime/mpsl_runtime/*/*.*) \
		$(wildcard models/*/model.nir)
	$(PYTHON) -m venv .venv-runtime
	.venv-runtime/bin/pip install -q --disable-pip-version-check -c constraints.txt $(BUILD)
	.venv-runtime/bin/pip install -q --disable-pip-version-check -c constraints.txt \
		--no-build-isolation './runtime[test]'
	touch $@

# Python is not built so, hence LD_PRELOAD; -S leaves out the editable install, so that mpsl_runtime
# can only be the one that was built here. Leaks are not looked for: Python's own would drown ours.
# test_engine.py takes half the time and is left to the plain build: random networks go everywhere it goes.
SITE = $(shell $(BIN)/python -c 'import hypothesis, pathlib; print(pathlib.Path(hypothesis.__file__).parents[1])')
define sanitized-runtime
	rm -rf $(1)/site
	$(PIP) --no-build-isolation --no-deps --target $(1)/site \
		-C cmake.define.MPSL_SANITIZE=$(2) -C build-dir=$(CURDIR)/$(1)/build ./runtime
endef

ASAN := build/address
$(ASAN)/.built: $(VENV)/.native $(wildcard runtime/src/* runtime/src/*/* runtime/mpsl_runtime/*.py runtime/mpsl_runtime/*/*.*)
	$(call sanitized-runtime,$(ASAN),address$(COMMA)undefined)
	touch $@

UNDER_ASAN = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=$(CURDIR)/$(ASAN)/site:$(SITE) OMP_NUM_THREADS=1 \
	$(BIN)/python -S -m pytest -q -p no:cacheprovider

sanitize: $(ASAN)/.built ## the tests of the engine, built with AddressSanitizer and UBSan
	$(UNDER_ASAN) tests/runtime/run/engine --ignore=tests/runtime/run/engine/test_engine.py \
		tests/runtime/events/test_decoders.py tests/runtime/events/test_text.py tests/runtime/events/test_recordings.py \
		tests/runtime/events/test_filters.py tests/runtime/events/test_geometry.py \
		tests/runtime/live/test_udp.py tests/runtime/live/test_damaged_datagrams.py

# What enters C++ does so under sanitizers: a write out of bounds seldom ends a process by itself.
# Run folders and exports take whole verbs each: a tenth of FUZZ. MPSL_SEED=N goes through the same again.
fuzz: $(ASAN)/.built ## random networks and damaged files of every kind, new ones every time: FUZZ=2000 of each
	MPSL_FUZZ=$(or $(FUZZ),2000) $(UNDER_ASAN) \
		tests/runtime/run/engine/test_engine_random.py tests/runtime/run/engine/test_engine_state.py \
		tests/runtime/events/test_damaged_recordings.py tests/runtime/live/test_damaged_datagrams.py
	MPSL_FUZZ=$(or $(FUZZ),2000) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/fuzz \
		tests/export/write/c/test_random_graphs.py

# Not the AVX-512 builds: GCC 12's instrumentation makes them compute wrong sums, with one thread too.
sanitize-threads: setup ## the tests of threads, built with ThreadSanitizer
	$(call sanitized-runtime,build/thread,thread)
	LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" TSAN_OPTIONS=halt_on_error=1 \
		PYTHONPATH=$(CURDIR)/build/thread/site:$(SITE) $(BIN)/python -S -m pytest -q -p no:cacheprovider \
		tests/runtime/run/engine/test_engine_threads.py tests/runtime/live/test_udp.py \
		-k "test_udp or (baseline or v3) and not forked"

check: setup ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# BENCH="--model runs/a/model.nir --source DIR" adds a model of yours on its recordings.
bench: setup ## speed against ONNX Runtime in one process: tables and a plot in runs/bench
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/engine_speed.py --out runs/bench $(BENCH)

# DATA is the folder that holds mnist/; BENCH="--batches 16 --rounds 3" makes it quick.
bench-train: setup peers ## speed of a training step against plain torch and other frameworks
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/train_speed.py --out runs/bench-train \
		$(if $(DATA),--data $(DATA)) $(BENCH)

# Needs no .venv: Python with torch for CUDA, and wheels in a folder for what it lacks. GPU="--minutes 9".
gpu: ## on a GPU: checks against the CPU, speed, the paper's runs; DATA=, WHEELS= folders; goes on next time
	$(PYTHON) tests/gpu/session.py --data $(DATA) --out runs/gpu $(if $(WHEELS),--wheels $(WHEELS)) $(GPU)

bench-events: setup peers ## rates of reading recordings, beside other readers in the same process
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/event_rates.py --out runs/bench-events $(BENCH)

# A sender on one core, the receiver and the network on another. BENCH="--seconds 10 --core 2".
bench-live: setup ## events a second from a socket through the network, and how late the answer is
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/live_speed.py $(BENCH)

tree: ## the file trees of the packages' READMEs, from the docstrings
	$(PYTHON) tests/trees.py

clean: ## everything that was built, but no run
	rm -rf $(VENV) .venv-runtime runtime/build build *.egg-info
