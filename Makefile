# make help lists the targets. Each sets up .venv by itself.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000

# python3 where TensorFlow has a wheel for it, else the newest other one that has.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
    $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
    2>/dev/null && echo $$p && break; done)

NPM := book/npm
VENDOR := book/_static/vendor
ASSETS := $(VENDOR)/.installed
MADE := book/_static/made/cases.json
BROWSER := $(VENV)/.browser
OTTER := $(VENV)/otter/bin/otter

# zsh leaves the ~ of SEED_FILE=~/secret to us.
override SEED_FILE := $(patsubst ~/%,$(HOME)/%,$(SEED_FILE))
override SUBMISSIONS := $(patsubst ~/%,$(HOME)/%,$(SUBMISSIONS))
override OUT := $(patsubst ~/%,$(HOME)/%,$(OUT))

# uv does what pip does in a third of the time, but does not know what pip was told of mirrors.
PIP := pip install --quiet --disable-pip-version-check
UV := uv pip install --quiet --compile-bytecode
# By a name, as a comma would part what `install` is given.
BOOK_AND_TEST := -e ".[book,test]"
install = { $(BIN)/$(PIP) uv && $(BIN)/$(UV) --python $(1)/bin/python $(2); } || $(1)/bin/$(PIP) $(2)

# Without it TensorFlow reports each feature of the CPU.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help book slides slides-pdf chapters assets browser pdf links data test fuzz lint bench serve clean
.PHONY: secret coursework grade coursework-proof

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

book: $(ASSETS) $(MADE) ## build the book from the notebooks as stored: _build/html/index.html
	$(BIN)/jupyter-book build . -W --keep-going
	@echo "Open _build/html/index.html, or run: make serve"

slides: $(ASSETS) ## build the decks of slides alone: _build/html/slides; the book has them too
	$(BIN)/python book/extensions/slides.py

slides-pdf: slides $(BROWSER) ## print each deck with Chromium, without and with notes: _build/slides
	$(BIN)/python book/print_slides.py

chapters: $(STAMP) data ## run every notebook again and store what it gives
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False notebooks/*.ipynb
	$(BIN)/python book/shrink_pictures.py notebooks/*.ipynb

assets: $(ASSETS) $(MADE) ## fetch and make what the pages need besides themselves

browser: book $(BROWSER) ## open every page of the book in Chromium; SCREENSHOTS=1 for pictures in _build/screenshots
	$(BIN)/pytest -n 2 -m browser tests/browser

pdf: book $(BROWSER) ## print the whole book with Chromium: _build/tunet-book.pdf
	$(BIN)/jupyter-book build . --builder singlehtml
	$(BIN)/python book/print_pdf.py

links: $(ASSETS) $(MADE) ## list links to other sites that do not answer; the build itself checks all others
	-$(BIN)/jupyter-book build . --builder linkcheck
	@grep -E '\[(broken|timeout)\]' _build/linkcheck/output.txt || echo "All answer."

data: $(STAMP)
	$(BIN)/tunet phantom data/phantoms

# A thread for each of two processes: with two for each they wait for one another.
test: export TF_NUM_INTRAOP_THREADS ?= 1
test: export TF_NUM_INTEROP_THREADS ?= 1
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP) data ## run the notebooks against their stored outputs, and the unit tests
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder \
	    --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg notebooks tests

fuzz: $(STAMP) ## damage 10,000 NIfTIs, 1,000 series of DICOM and 1,000 other files: taken, or refused
	PYTHONPATH=tests:. $(BIN)/python tests/faults/fuzz.py niftis 10000
	PYTHONPATH=tests:. $(BIN)/python tests/faults/fuzz.py dicom 1000
	PYTHONPATH=tests:. $(BIN)/python tests/faults/fuzz.py side 1000

lint: $(STAMP) ## check style, types, import layers, spelling, and that chapters show today's library
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python book/renew_sources.py --check notebooks/*.ipynb

bench: $(STAMP) ## measure beside other libraries; writes book/results/benchmarks.csv
	$(call install,$(VENV),-e ".[bench]")
	$(BIN)/python -m benchmarks

secret: ## make a teacher's secret: SEED_FILE, which must lie outside of this repository
	@test -n "$(SEED_FILE)" || { echo "Name a file: make secret SEED_FILE=…"; exit 1; }
	@test ! -e "$(SEED_FILE)" || { echo "$(SEED_FILE) is there already."; exit 1; }
	@(umask 077; python3 -c 'import secrets; print(secrets.token_hex(16))' > "$(SEED_FILE)")
	@echo "$(SEED_FILE): keep it, and give it to nobody."

coursework: $(STAMP) $(OTTER) ## prove the assignments under SEED_FILE, make what is handed out
	@test -n "$(SEED_FILE)" || { echo "Name your secret: make coursework SEED_FILE=…"; exit 1; }
	$(BIN)/python -m coursework.build $(A) --seed-file "$(SEED_FILE)" --otter $(OTTER)

grade: $(STAMP) ## grade a class: A=a6 SUBMISSIONS=folder SEED_FILE=file; OUT=folder for the results
	@test -n "$(A)" -a -n "$(SUBMISSIONS)" -a -n "$(SEED_FILE)" || { \
	    echo "Name all three: make grade A=a6 SUBMISSIONS=… SEED_FILE=…"; exit 1; }
	$(BIN)/python -m coursework.grade $(A) "$(SUBMISSIONS)" --seed-file "$(SEED_FILE)" \
	    --out "$(or $(OUT),grades/$(A))"

coursework-proof: $(STAMP) ## prove every assignment under five fixed secrets and a fresh one
	$(BIN)/python -m coursework.proof $(A)

serve: ## show the built book at http://localhost:8000 (PORT=… for another port)
	@test -e _build/html/index.html || $(MAKE) book
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## remove what was built, not the data, runs or .venv
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(BROWSER): $(STAMP)
	$(call install,$(VENV),-e ".[browser]")
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	    $(BIN)/playwright install chromium
	@touch $@

# In an environment of its own, since it lowers Sphinx. pyproject.toml says which version.
$(OTTER): $(STAMP)
	$(BIN)/python -m venv $(VENV)/otter
	$(call install,$(VENV)/otter,"$$($(BIN)/python -c \
	    'from importlib.metadata import requires; print(*[line.partition(";")[0] \
	    for line in requires("tunet-book") if "coursework" in line])')")

# Of KaTeX the pages need its style and its fonts: the formulas are set when the book is built. Of
# onnxruntime they need two programs: for processors, and for graphics cards.
# Its npm comes from pip, so that no Node.js need be installed. PATH: npm's own scripts call node.
$(ASSETS): $(NPM)/package.json $(NPM)/package-lock.json $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --prefix $(NPM) --no-audit --no-fund --ignore-scripts
	rm -rf $(VENDOR)
	mkdir -p $(VENDOR)/katex/fonts
	cp $(NPM)/node_modules/katex/dist/katex.min.css $(VENDOR)/katex
	cp $(NPM)/node_modules/katex/dist/fonts/*.woff2 $(VENDOR)/katex/fonts
	mkdir -p $(VENDOR)/onnxruntime $(VENDOR)/niivue $(VENDOR)/dicom-parser $(VENDOR)/dcm2niix $(VENDOR)/pako
	cp $(NPM)/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs \
	    $(NPM)/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm \
	    $(NPM)/node_modules/onnxruntime-web/dist/ort.jspi.bundle.min.mjs \
	    $(NPM)/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.jspi.wasm $(VENDOR)/onnxruntime
	cp $(NPM)/node_modules/@niivue/niivue/dist/niivue.umd.js $(VENDOR)/niivue
	cp $(NPM)/node_modules/dicom-parser/dist/dicomParser.min.js $(VENDOR)/dicom-parser
	cp $(NPM)/node_modules/@niivue/dcm2niix/dist/dcm2niix.jpeg.js \
	    $(NPM)/node_modules/@niivue/dcm2niix/dist/dcm2niix.jpeg.wasm $(VENDOR)/dcm2niix
	for name in katex dicom-parser; do \
	    cp $(NPM)/node_modules/$$name/LICENSE $(VENDOR)/$$name; done
	for name in niivue dcm2niix onnxruntime pako; do cp $(NPM)/licenses/$$name.txt $(VENDOR)/$$name/LICENSE; done
	cp $(NPM)/node_modules/pako/dist/browser/pako_inflate.esm.min.mjs $(VENDOR)/pako
	mkdir -p $(VENDOR)/reveal
	cd $(NPM)/node_modules/reveal.js && cp LICENSE dist/reveal.css dist/reveal.js \
	    dist/plugin/notes.js dist/plugin/zoom.js "$(CURDIR)/$(VENDOR)/reveal"
	@touch $@

# The phantoms, what the networks find in them, and the networks themselves.
$(MADE): book/page_files.py tunet_lib/export.py $(wildcard tunet_lib/course_weights/*/model.weights.h5) \
        $(wildcard tunet_lib/course_maps/*.npz) $(STAMP)
	$(BIN)/python book/page_files.py

$(STAMP): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	    echo "Python 3.10 to 3.13 is needed and was not found."; \
	    echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; fi
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(call install,$(VENV),$(BOOK_AND_TEST))
	@touch $@
