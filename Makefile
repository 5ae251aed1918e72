# norion. `make help` lists the verbs. Options of the native build, for every verb:
#   CUDA=1      with the CUDA back end (needs nvcc)       METAL is automatic on macOS
#   CUDAARCHS=90  CUDA for these devices only; by default this machine's, with DL=1 all
#   NATIVE=0    for any x86-64-v3 or arm64 machine        DL=1  shared libraries, CPU plug-ins
#   LLAMA_CPP_DIR=DIR  a checkout of llama.cpp            NORION_CACHE=DIR  where builds are kept
#   JOBS=N      parallel compilations

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
export CUDA CUDAARCHS DL NATIVE LLAMA_CPP_DIR NORION_CACHE JOBS

GO      ?= go
NATIVE_TOOL := CGO_ENABLED=0 $(GO) run ./third_party/native
# How go builds with the native part: written by `native`, read when a recipe runs.
CGO      = . third_party/dist/goenv;
TAGS     = -tags="$$NORION_TAGS"
ASAN_WORKS = echo 'int main(void) { return 0; }' | \
	$${CC:-cc} -fsanitize=address -x c -o /dev/null - 2>/dev/null
COUNT   := $(GO) run ./docs/house/count
# With -o the go command keeps the symbols that the sanitizer names leaks by.
ASAN_TEST = $(GO) test -asan -tags=$$NORION_TAGS -timeout 30m -o bin/llama-asan.test ./runtime/llama
FUZZTIME ?= 30s
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULN   := golang.org/x/vuln/cmd/govulncheck@v1.9.0
MODEL   ?= smollm2:135m
PROMPT  ?= Why is the sky blue? Answer in two sentences.

.DEFAULT_GOAL := help
.PHONY: help run build native peers test race asan fuzz bench lint cover clean

help: ## list the verbs
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build everything, then let a small real model answer (MODEL=, PROMPT=)
	bin/norion run $(MODEL) "$(PROMPT)"

build: native ## build bin/norion
	$(CGO) $(GO) build $(TAGS) -o bin/norion ./cmd/norion
	@if [ "$${DL:-}" = 1 ]; then cp -f third_party/dist/lib/*.so* bin/; fi

native: ## get, verify and build the pinned llama.cpp and the shim
	@$(NATIVE_TOOL) build

peers: ## build llama-bench, llama-server and others from the same tree, for comparisons
	@$(NATIVE_TOOL) peers

test: native ## every check that needs no lint tools: builds, vet, race, address sanitizer
	CGO_ENABLED=0 $(GO) build ./...
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 $(GO) vet ./...
	$(CGO) $(GO) vet $(TAGS) ./...
	@$(CGO) asan="$(ASAN_TEST)"; mkdir -p bin; \
	$(ASAN_WORKS) || { asan=""; echo "make: no address sanitizer here; that run is left out"; }; \
	$(COUNT) "$(GO) test -race -tags=$$NORION_TAGS -timeout 30m ./..." $${asan:+"$$asan"}

race: native ## all tests with the race detector
	$(CGO) $(COUNT) "$(GO) test -race -tags=$$NORION_TAGS -timeout 30m ./..."

asan: native ## the binding's tests with the address sanitizer
	@$(ASAN_WORKS) || { echo "make: the C compiler has no address sanitizer" >&2; exit 1; }
	@mkdir -p bin
	$(CGO) $(COUNT) "$(ASAN_TEST)"

fuzz: native ## each fuzz target for FUZZTIME (30s)
	@$(CGO) $(GO) test $(TAGS) -list '^Fuzz' ./... | \
	awk '/^Fuzz/ {f[++n] = $$1} /^ok/ {for (i = 1; i <= n; i++) print $$2, f[i]; n = 0}' | \
	while read -r pkg target; do \
		echo "fuzz: $$pkg $$target"; \
		$(CGO) $(GO) test $(TAGS) -run '^$$' -fuzz "^$$target\$$" \
			-fuzztime $(FUZZTIME) "$$pkg" </dev/null; \
	done

bench: native ## Go benchmarks of every package
	$(CGO) $(GO) test $(TAGS) -run '^$$' -bench . -benchmem ./...

lint: native ## golangci-lint, govulncheck, and the shim with warnings as errors
	@$(NATIVE_TOOL) strict
	$(CGO) $(GO) run $(GOLANGCI) run --build-tags "$$NORION_TAGS" ./...
	@$(CGO) echo "govulncheck ./..."; \
	out=$$($(GO) run $(GOVULN) $(TAGS) ./... 2>&1) && echo "$$out" || case "$$out" in \
	*"fetching vulnerabilities"*) echo "make: NOT CHECKED for vulnerabilities: no database" >&2 ;; \
	*) echo "$$out"; exit 1 ;; esac

cover: native ## statement coverage by package, and .cover/index.html
	@mkdir -p .cover
	$(CGO) $(GO) test $(TAGS) -coverprofile .cover/profile ./...
	$(GO) tool cover -html .cover/profile -o .cover/index.html
	@$(GO) tool cover -func .cover/profile | tail -1

clean: ## remove what was built here; the cache of native builds stays
	rm -rf bin .cover third_party/dist runtime/llama/native_stamp.h
