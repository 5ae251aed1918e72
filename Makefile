# norion. `make help` lists the verbs. Options of the native build, for every verb:
#   CUDA=1      with the CUDA back end (needs nvcc)       METAL is automatic on macOS
#   NATIVE=0    for any x86-64-v3 or arm64 machine        DL=1  shared libraries, CPU plug-ins
#   LLAMA_CPP_DIR=DIR  a checkout of llama.cpp            NORION_CACHE=DIR  where builds are kept
#   JOBS=N      parallel compilations

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
export CUDA DL NATIVE LLAMA_CPP_DIR NORION_CACHE JOBS

GO      ?= go
NATIVE_TOOL := CGO_ENABLED=0 $(GO) run ./third_party/native
# The build tags and link flags of the native build; read when a recipe runs, after `native`.
TAGS     = -tags "$$(cat third_party/dist/tags)"
CGO      = CGO_ENABLED=1 CGO_LDFLAGS="$$(cat third_party/dist/ldflags) $${CGO_LDFLAGS:-}"
DIST_LIB = LD_LIBRARY_PATH="$(CURDIR)/third_party/dist/lib$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}"
COUNT   := $(GO) run ./docs/house/count
FUZZTIME ?= 30s
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULN   := golang.org/x/vuln/cmd/govulncheck@v1.9.0
MODEL   ?= smollm2:135m
PROMPT  ?= Why is the sky blue? Answer in two sentences.

.DEFAULT_GOAL := help
.PHONY: help run build native peers test race asan fuzz bench lint cover clean portable

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
