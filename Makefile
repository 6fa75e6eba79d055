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
# When the commit was made (seconds since 1970), which is what the image says:
# the same commit is the same image.
COMMITTED = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# What the programs are built for. The flags are the Dockerfile's, so that the
# same commit gives the same programs here and there.
ARCHITECTURES := amd64 arm64 ppc64le s390x
RELEASE_FLAGS := -trimpath -buildvcs=auto -ldflags="-s -w"

# How long each fuzzing target is fed, by make fuzz.
FUZZTIME ?= 60s

# A cold kube-apiserver takes minutes; everything else is far below this.
TEST_TIMEOUT := 30m

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
# Old ones of buildah and podman (1.28, 4.3) do not know BUILDPLATFORM by themselves.
image: ## Build the image by buildah, podman or docker (IMAGE=, PLATFORMS=linux/amd64,linux/arm64, GOFIPS140=v1.0.0 for FIPS)
	@[ -n "$(BUILDER)" ] || { echo "make image needs buildah, podman or docker: install one of them" >&2; exit 1; }
	@$(if $(and $(findstring $(comma),$(PLATFORMS)),$(filter docker,$(BUILDER)),$(if $(findstring --push,$(IMAGE_FLAGS)),,no)),echo "docker keeps no image of several platforms: add IMAGE_FLAGS=--push" >&2; exit 1)
	@# A manifest list of before would keep its images, too, and be asked first.
	@$(if $(filter-out docker,$(BUILDER)),$(BUILDER) manifest rm $(IMAGE) >/dev/null 2>&1 || $(BUILDER) rmi $(IMAGE) >/dev/null 2>&1 || true)
	$(if $(filter docker,$(BUILDER)),SOURCE_DATE_EPOCH=$(COMMITTED) )$(BUILDER) $(if $(filter docker,$(BUILDER)),buildx) build --platform $(PLATFORMS) \
		$(if $(and $(findstring $(comma),$(PLATFORMS)),$(filter-out docker,$(BUILDER))),--manifest,--tag) $(IMAGE) \
		$(if $(filter-out docker,$(BUILDER)),--timestamp $(COMMITTED) --build-arg BUILDPLATFORM=linux/$$(go env GOHOSTARCH)) \
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
test: cluster-build tools ## Run all tests: unit tests, those against a real API server, and some seconds of each fuzzing target
	CGO_ENABLED=1 GOLANGCI_LINT=$(TOOLS)/golangci-lint go test -race -timeout $(TEST_TIMEOUT) ./...
	cd test/cluster && CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) ./...
	@$(MAKE) --no-print-directory fuzz FUZZTIME=3000x

.PHONY: chart-test
chart-test: tools ## Test the chart: helm-unittest, values, schema, Kubernetes' own schemas
	$(TOOLS)/helm-unittest --strict $(CHART)
	go test ./test/chart -count=1

.PHONY: e2e
e2e: tools ## Install the image and the chart on a real node and try everything (as root; E2E_EXISTING=1 KUBECONFIG= E2E_IMAGE= for a cluster that is there)
	E2E=1 go test ./test/installed -count=1 -v -timeout 60m

.PHONY: docs-test
docs-test: tools ## Run the commands in the documentation, on a real node with the guard installed (as root)
	go test ./test/docs -count=1
	E2E=1 go test ./test/installed -run TestDocs -count=1 -v -timeout 30m

.PHONY: test-monitoring
test-monitoring: tools cluster-build prometheus ## Try the alerts by promtool, and the dashboard by a Prometheus that scrapes the real programs
	PROMETHEUS=$$(if [ -x $(PROMETHEUS)/prometheus ]; then echo $(PROMETHEUS); else dirname "$$(command -v promtool)"; fi) go test ./test/monitoring -count=1 -v -timeout 30m

# Debian's package is unpacked, not installed: nothing is started.
PROMETHEUS := $(TOOLS)/prometheus/usr/bin
.PHONY: prometheus
prometheus:
	@[ -x $(PROMETHEUS)/promtool ] || command -v promtool prometheus >/dev/null || { \
		mkdir -p $(TOOLS)/prometheus && cd $(TOOLS)/prometheus && \
		{ apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; } && \
		dpkg -x prometheus_*.deb . && rm prometheus_*.deb; \
	} || { echo "make test-monitoring needs prometheus and promtool: install them" >&2; exit 1; }

.PHONY: test-unit
test-unit: ## Run the tests that need neither an API server nor a linter
	CGO_ENABLED=1 go test -race ./pkg/... ./webhook/... ./nodeagent/... ./test/openshift/...

.PHONY: test-rotation
test-rotation: ## Rotate certificates 2000 times in every way, with faults, under the agent's eyes (some minutes)
	go test ./test/rotation -count=1 -v -timeout 60m -rotations 2000

# Go's fuzzer now and then takes its own end for a failure ("context deadline
# exceeded", with no input that failed): that alone is none. Counts (3000x) have
# no such end.
.PHONY: fuzz
fuzz: ## Feed every parser and the admission handler what nobody would send, FUZZTIME (60s) each; what breaks one is kept in testdata/fuzz
	@out=$$(mktemp) && trap 'rm -f "$$out"' EXIT && \
	grep -rno --include=*_test.go '^func Fuzz[A-Za-z]*' pkg webhook nodeagent | sed -E 's#^(.*)/[^/]*:[0-9]+:func #./\1 #' | \
		while read -r package name; do \
			echo "$$name in $$package"; \
			go test "$$package" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s </dev/null >"$$out" 2>&1 && tail -n 3 "$$out" && continue; \
			cat "$$out"; \
			grep -q '^    context deadline exceeded$$' "$$out" && ! grep -q 'Failing input' "$$out" || exit 1; \
		done

.PHONY: test-fips
test-fips: ## Run the unit tests on Go's FIPS 140-3 module, and again where whatever it does not approve of is refused
	GODEBUG=fips140=on go test ./pkg/... ./webhook/... ./nodeagent/...
	GODEBUG=fips140=only go test ./pkg/... ./webhook/... ./nodeagent/...

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what the programs call; this asks vuln.go.dev
	@go build -C tools -o ../.tools/ golang.org/x/vuln/cmd/govulncheck
	$(TOOLS)/govulncheck ./webhook/... ./nodeagent/...

# Shorter runs: BENCH_WEBHOOK="-rounds 2 -requests 50" BENCH_AGENT="-runs 1 -idle 30s -noise 10s".
BENCH_WEBHOOK ?=
BENCH_AGENT ?=
.PHONY: bench
bench: MARKDOWN := -markdown docs/benchmarks.md
bench: bench-webhook bench-agent ## Measure both (about 10 minutes): tables into docs/benchmarks.md, figures to dist/bench-*.json

.PHONY: test-faults
test-faults: ## Let everything go wrong under both programs, beside a real API server (some minutes)
	FAULTS=1 go test ./test/faults -count=1 -v -parallel 6 -timeout 60m

DURATION ?= 20m
.PHONY: soak
soak: ## Run both programs under load and rotations, and print what grows per hour (DURATION=20m)
	@go run ./test/soak -duration $(DURATION) $(SOAK_FLAGS)

.PHONY: bench-webhook
bench-webhook: ## Measure admission, side by side with no webhook, the policy alone, no-op webhooks and Gatekeeper
	@go run ./test/bench/webhook -json $(DIST)/bench-webhook.json $(MARKDOWN) $(BENCH_WEBHOOK)

.PHONY: bench-agent
bench-agent: ## Measure the agent: memory, CPU, how soon it tells, what files and events cost
	@go run ./test/bench/agent -json $(DIST)/bench-agent.json $(MARKDOWN) $(BENCH_AGENT)

.PHONY: lint
lint: tools ## Lint the code, the import rules and the chart
	$(TOOLS)/golangci-lint config verify
	$(TOOLS)/golangci-lint run ./...
	cd test/cluster && $(TOOLS)/golangci-lint run ./...
	$(TOOLS)/helm lint --strict $(CHART)
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd test/cluster && go mod tidy -diff
	cd test/bench/gatekeeper && go mod tidy -diff

.PHONY: generate
generate: tools ## Write what is generated: the chart's README, the configuration reference, the control mapping
	$(TOOLS)/helm-docs --chart-search-root charts --sort-values-order file --log-level warning
	go run ./test/docs/generate

.PHONY: verify
verify: generate ## Check that what is generated is up to date, and that every value of the chart is described
	git diff --exit-code -- charts docs
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
