# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The programs are static. Tests run with the race detector, which needs cgo.
export CGO_ENABLED := 0

BIN := $(CURDIR)/bin
DIST := $(CURDIR)/dist
TOOLS := $(CURDIR)/.tools
CHART := charts/kubelet-https-guard

# The image: its name, its platforms (with commas between them; several make a
# manifest list), the version of Go's FIPS module that the FIPS variant is built
# with, and the program that builds it, with more of its flags.
IMAGE ?= ghcr.io/kubelet-https-guard/kubelet-https-guard:dev
PLATFORMS ?= linux/$(shell go env GOARCH)
GOFIPS140 ?= off
BUILDER ?= $(notdir $(firstword $(foreach program,buildah podman docker,$(shell command -v $(program)))))
IMAGE_FLAGS ?=

# What the programs are built for. The flags are the Dockerfile's, so that the
# same commit gives the same programs here and there.
ARCHITECTURES := amd64 arm64 ppc64le s390x
RELEASE_FLAGS := -trimpath -buildvcs=auto -ldflags="-s -w"

# A cold kube-apiserver takes minutes; everything else is far below this.
TEST_TIMEOUT := 30m

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show the guard at work on a real API server (DEMO_KEEP=1 leaves it up)
	@go run ./test/demo

.PHONY: demo-down
demo-down: ## End a demo that was left up
	@go run ./test/demo down

.PHONY: build
build: ## Build both programs into bin/
	go build -buildvcs=auto -o $(BIN)/ ./webhook ./nodeagent

comma := ,
.PHONY: image
image: ## Build the image by buildah, podman or docker (IMAGE=, PLATFORMS=linux/amd64,linux/arm64, GOFIPS140=v1.0.0 for FIPS)
	@[ -n "$(BUILDER)" ] || { echo "make image needs buildah, podman or docker: install one of them" >&2; exit 1; }
	$(BUILDER) $(if $(filter docker,$(BUILDER)),buildx) build --platform $(PLATFORMS) \
		$(if $(and $(findstring $(comma),$(PLATFORMS)),$(filter-out docker,$(BUILDER))),--manifest,--tag) $(IMAGE) \
		--build-arg GOFIPS140=$(GOFIPS140) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(IMAGE_FLAGS) .

.PHONY: dist
dist: ## Build both programs for every platform, as in the image, into dist/, each with its SBOM (CycloneDX)
	@go build -C tools -o ../.tools/ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	for arch in $(ARCHITECTURES); do \
		GOOS=linux GOARCH=$$arch GOFIPS140=$(GOFIPS140) go build $(RELEASE_FLAGS) -o $(DIST)/linux-$$arch/ ./webhook ./nodeagent && \
		for program in webhook nodeagent; do \
			$(TOOLS)/cyclonedx-gomod bin -json -noserial -output $(DIST)/linux-$$arch/$$program.cdx.json $(DIST)/linux-$$arch/$$program || exit 1; \
		done || exit 1; \
	done

.PHONY: test
test: cluster-build tools ## Run all tests: unit tests and those against a real API server
	CGO_ENABLED=1 GOLANGCI_LINT=$(TOOLS)/golangci-lint go test -race -timeout $(TEST_TIMEOUT) ./...
	cd test/cluster && CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) ./...

.PHONY: chart-test
chart-test: tools ## Test the chart: helm-unittest, values, schema, Kubernetes' own schemas
	$(TOOLS)/helm-unittest --strict $(CHART)
	go test ./test/chart -count=1

.PHONY: e2e
e2e: tools ## Install the image and the chart on a real node and try everything (as root; E2E_EXISTING=1 KUBECONFIG= E2E_IMAGE= for a cluster that is there)
	E2E=1 go test ./test/installed -count=1 -v -timeout 60m

.PHONY: test-unit
test-unit: ## Run the tests that need neither an API server nor a linter
	CGO_ENABLED=1 go test -race ./pkg/... ./webhook/... ./nodeagent/... ./test/openshift/...

.PHONY: test-rotation
test-rotation: ## Rotate certificates 2000 times in every way, with faults, under the agent's eyes (some minutes)
	go test ./test/rotation -count=1 -v -timeout 60m -rotations 2000

.PHONY: test-faults
test-faults: ## Let everything go wrong under both programs, beside a real API server (some minutes)
	FAULTS=1 go test ./test/faults -count=1 -v -parallel 6 -timeout 30m

DURATION ?= 20m
.PHONY: soak
soak: ## Run both programs under load and rotations, and print what grows per hour (DURATION=20m)
	@go run ./test/soak -duration $(DURATION) $(SOAK_FLAGS)

.PHONY: bench-webhook
bench-webhook: ## Measure admission, side by side with a webhook that lets all pass
	@go run ./test/bench/webhook

.PHONY: bench-agent
bench-agent: ## Measure the agent: memory, idle CPU, how soon it tells
	@go run ./test/bench/agent

.PHONY: lint
lint: tools ## Lint the code, the import rules and the chart
	$(TOOLS)/golangci-lint config verify
	$(TOOLS)/golangci-lint run ./...
	cd test/cluster && $(TOOLS)/golangci-lint run ./...
	$(TOOLS)/helm lint --strict $(CHART)
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd test/cluster && go mod tidy -diff

.PHONY: generate
generate: tools ## Write what is generated: the chart's README
	$(TOOLS)/helm-docs --chart-search-root charts --sort-values-order file --log-level warning

.PHONY: verify
verify: generate ## Check that what is generated is up to date, and that every value of the chart is described
	git diff --exit-code -- charts
	! grep -n '|  |$$' charts/*/README.md

.PHONY: fmt
fmt: tools ## Format the code
	$(TOOLS)/golangci-lint fmt ./...
	cd test/cluster && $(TOOLS)/golangci-lint fmt ./...

.PHONY: cluster-build
cluster-build: ## Build etcd, kube-apiserver and kubectl, once (8 to 15 minutes on 2 cores)
	@go run -C test/cluster . build

.PHONY: cluster-up
cluster-up: ## Start a real control plane in the background and print how to use it
	@go run -C test/cluster . up

.PHONY: cluster-down
cluster-down: ## Stop it and remove what it stored
	@go run -C test/cluster . down

.PHONY: node-up
node-up: ## Start a real node beside it: kubelet, containerd and the rest, as root on Debian, and print how to use it
	@go run -C test/cluster . up --node

.PHONY: node-down
node-down: ## Stop it and remove all that it made
	@go run -C test/cluster . down --node

.PHONY: clean
clean: demo-down node-down ## Remove what was built here; the cluster's binaries stay in the user's cache
	rm -rf $(BIN) $(DIST) $(TOOLS) .demo .node

# Tools are pinned in tools/go.mod; go build knows whether they are up to date.
.PHONY: tools
tools:
	@go build -C tools -o ../.tools/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint helm.sh/helm/v4/cmd/helm \
		github.com/yannh/kubeconform/cmd/kubeconform github.com/helm-unittest/helm-unittest/cmd/helm-unittest \
		github.com/norwoodj/helm-docs/cmd/helm-docs
