# SPDX-License-Identifier: Apache-2.0

SHELL := /bin/bash
ifeq ($(wildcard $(SHELL)),)
$(error make needs bash as $(SHELL): apt-get install bash)
endif
.DEFAULT_GOAL := help

# The programs are static. Tests run with the race detector, which needs cgo.
export CGO_ENABLED := 0

# Everything but the test cluster is built with the Go release of the toolchain line in go.mod, which the go command
# downloads through the module proxy if it is not installed. Exported, since machines may pin GOTOOLCHAIN to local. If
# it cannot be downloaded, or with make GO_RELEASE=local, the installed Go is used: a build with Go 1.26 cannot read
# ML-DSA keys.
#
# make demo alone needs no special release, and people wait for it: it uses the installed Go if that is not too old, and
# compiles without inlining and debug information, which takes less time. All modules are in one workspace, so that
# nothing is compiled twice. With GO_RELEASE set, it uses what the tests use.
ifndef GO_RELEASE
ifeq ($(filter-out demo demo-down,$(or $(MAKECMDGOALS),help)),)
ifeq ($(shell GOWORK=off GOTOOLCHAIN=local go list -m 2>/dev/null),$(shell sed -n 's/^module //p' go.mod))
GO_RELEASE := local
endif
export DEMO_QUICK := 1
export GOWORK := $(CURDIR)/test/demo/go.work
export GOFLAGS := $(filter-out -mod=%,$(shell go env GOFLAGS)) '-ldflags=-s -w' '-gcflags=all=-l -dwarf=false'
endif
endif
ifndef GO_RELEASE
GO_RELEASE := $(shell sed -n 's/^toolchain //p' go.mod)
ifneq ($(shell GOTOOLCHAIN=$(GO_RELEASE) go env GOVERSION 2>/dev/null),$(GO_RELEASE))
$(info $(GO_RELEASE) cannot be downloaded: using the installed Go, if any, which may not support all key algorithms)
GO_RELEASE := local
endif
endif
export GO_RELEASE
export GOTOOLCHAIN := $(GO_RELEASE)

BIN := $(CURDIR)/bin
DIST := $(CURDIR)/dist
TOOLS := $(CURDIR)/.tools
# Where make node-up has its node.
NODE_DIR ?= $(CURDIR)/.node
CHART := charts/kubelet-https-guard

# The image: its name, its platforms (separated by commas; more than one makes a
# manifest list), the version of Go's FIPS module for the FIPS variant, and the
# program that builds it, with additional flags.
IMAGE ?= ghcr.io/kubelet-https-guard/kubelet-https-guard:dev
PLATFORMS ?= linux/$(shell go env GOARCH)
GOFIPS140 ?= off
BUILDER ?= $(notdir $(firstword $(foreach program,buildah podman docker,$(shell command -v $(program)))))
IMAGE_FLAGS ?=
# The time of the commit (Unix time) is the creation time of the image, so that
# the same commit gives the same image.
COMMITTED = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# The platforms of make dist. The flags are the same as in the Dockerfile, so that
# the same commit gives the same binaries.
ARCHITECTURES := amd64 arm64 ppc64le s390x
RELEASE_FLAGS := -trimpath -buildvcs=auto -ldflags="-s -w"

# How long make fuzz runs each fuzzing target.
FUZZTIME ?= 60s

# The first build of the kube-apiserver takes minutes; everything else is much faster.
TEST_TIMEOUT := 30m

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Demonstrate the guard on a real API server (DEMO_KEEP=1 keeps it running)
	@sh test/preflight/preflight.sh demo
	@GOGC=off GOMEMLIMIT=1GiB go build -o $(BIN)/demo ./test/demo && $(BIN)/demo

.PHONY: demo-down
demo-down: ## Stop a demo that was kept running
	@go run ./test/demo down

.PHONY: build
build: ## Build both programs into bin/
	go build -buildvcs=auto -o $(BIN)/ ./webhook ./nodeagent

comma := ,
.PHONY: image
# Old versions of buildah and podman (1.28, 4.3) do not set BUILDPLATFORM.
image: ## Build the image with buildah, podman or docker (IMAGE=, PLATFORMS=linux/amd64,linux/arm64, GOFIPS140=v1.0.0 for FIPS)
	@[ -n "$(BUILDER)" ] || { echo "make image needs buildah, podman or docker: install one of them" >&2; exit 1; }
	@$(if $(and $(findstring $(comma),$(PLATFORMS)),$(filter docker,$(BUILDER)),$(if $(findstring --push,$(IMAGE_FLAGS)),,no)),echo "docker cannot store an image for several platforms locally: add IMAGE_FLAGS=--push" >&2; exit 1)
	@# An existing manifest list would keep its old images.
	@$(if $(filter-out docker,$(BUILDER)),$(BUILDER) manifest rm $(IMAGE) >/dev/null 2>&1 || $(BUILDER) rmi $(IMAGE) >/dev/null 2>&1 || true)
	$(if $(filter docker,$(BUILDER)),SOURCE_DATE_EPOCH=$(COMMITTED) )$(BUILDER) $(if $(filter docker,$(BUILDER)),buildx) build --platform $(PLATFORMS) \
		$(if $(and $(findstring $(comma),$(PLATFORMS)),$(filter-out docker,$(BUILDER))),--manifest,--tag) $(IMAGE) \
		$(if $(filter-out docker,$(BUILDER)),--timestamp $(COMMITTED) --build-arg BUILDPLATFORM=linux/$$(go env GOHOSTARCH)) \
		--build-arg GOFIPS140=$(GOFIPS140) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) $(IMAGE_FLAGS) .

# The three builders save an image in the same format by different commands.
.PHONY: image-archive
image-archive: image ## Build the image and save it as dist/image.tar, for nodes that cannot pull it from a registry
	@mkdir -p $(DIST) && rm -f $(DIST)/image.tar
	$(if $(findstring buildah,$(BUILDER)),buildah push --quiet $(IMAGE) docker-archive:$(DIST)/image.tar:$(IMAGE),$(BUILDER) save --output $(DIST)/image.tar $(IMAGE))

.PHONY: dist
dist: ## Build both programs for every platform into dist/, with the flags of the image, each with an SBOM (CycloneDX)
	@go build -C tools -o ../.tools/ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	for arch in $(ARCHITECTURES); do \
		GOOS=linux GOARCH=$$arch GOFIPS140=$(GOFIPS140) go build $(RELEASE_FLAGS) -o $(DIST)/linux-$$arch/ ./webhook ./nodeagent && \
		for program in webhook nodeagent; do \
			$(TOOLS)/cyclonedx-gomod bin -json -noserial -output $(DIST)/linux-$$arch/$$program.cdx.json $(DIST)/linux-$$arch/$$program || exit 1; \
		done || exit 1; \
	done

# A release is signed with the key file COSIGN_KEY (its password in COSIGN_PASSWORD), or with COSIGN_KEY=keyless by an
# identity, which needs a network. Without COSIGN_KEY it is signed with a throw-away key: to try it, not to publish it.
RELEASE := $(DIST)/release
RELEASE_VERSION = $(shell sed -n 's/^version: //p' $(CHART)/Chart.yaml)
THROW_AWAY_KEY := $(DIST)/throw-away
COSIGN_KEY ?=
COSIGN_PUBLIC_KEY ?= $(if $(COSIGN_KEY),$(patsubst %.key,%.pub,$(filter-out keyless,$(COSIGN_KEY))),$(THROW_AWAY_KEY).pub)
# The program runs in release/. A key may also be the address of a key management service.
KEY_PATH = $(if $(findstring ://,$(1)),$(1),$(abspath $(1)))
# If set, make release publishes to this registry and path, and make verify-release verifies what is there.
RELEASE_REGISTRY ?=
# For keyless signatures: --certificate-identity … --certificate-oidc-issuer …
VERIFY_FLAGS ?=
RELEASE_PROGRAM = go run -C release . $(1) --dir $(RELEASE)
.PHONY: release
release: tools cosign ## Make a signed release in dist/release: image, chart, SBOMs, provenance, checksums (COSIGN_KEY=, RELEASE_REGISTRY=)
	rm -rf $(RELEASE)
	$(MAKE) --no-print-directory dist DIST=$(RELEASE)
	@# cyclonedx-gomod writes the current time; that of the commit is the same in each build.
	sed -i "s/^    \"timestamp\": .*/    \"timestamp\": \"$$(date -u -d @$(COMMITTED) +%FT%TZ)\",/" $(RELEASE)/linux-*/*.cdx.json
	@# Files of git archive have the time of the commit, so the package depends on nothing else.
	mkdir -p $(RELEASE)/source && git archive HEAD $(CHART) | tar -x -C $(RELEASE)/source
	$(TOOLS)/helm package $(RELEASE)/source/$(CHART) --destination $(RELEASE)
	rm -r $(RELEASE)/source
	$(call RELEASE_PROGRAM,build) --version $(RELEASE_VERSION) --revision $$(git rev-parse HEAD) --time $(COMMITTED)
ifeq ($(COSIGN_KEY),)
	@[ -e $(THROW_AWAY_KEY).key ] || COSIGN_PASSWORD= $(TOOLS)/cosign generate-key-pair --output-key-prefix $(THROW_AWAY_KEY)
	COSIGN_PASSWORD= $(call RELEASE_PROGRAM,sign) --cosign $(TOOLS)/cosign --key $(THROW_AWAY_KEY).key
	@echo "Signed with a throw-away key. Set COSIGN_KEY to publish." >&2
else
	$(call RELEASE_PROGRAM,sign) --cosign $(TOOLS)/cosign --key "$(call KEY_PATH,$(filter-out keyless,$(COSIGN_KEY)))"
endif
	$(if $(RELEASE_REGISTRY),$(call RELEASE_PROGRAM,publish) --to $(RELEASE_REGISTRY))

.PHONY: verify-release
verify-release: cosign ## Verify the release in dist/release, and with RELEASE_REGISTRY= what is published there (COSIGN_PUBLIC_KEY=)
	$(call RELEASE_PROGRAM,verify) --version $(RELEASE_VERSION) --cosign $(TOOLS)/cosign --key "$(call KEY_PATH,$(COSIGN_PUBLIC_KEY))" \
		$(if $(RELEASE_REGISTRY),--from $(RELEASE_REGISTRY)) $(VERIFY_FLAGS)

.PHONY: test-release
test-release: tools cosign ## Test make release and make verify-release with a throw-away key and a local registry
	cd release && COSIGN=$(TOOLS)/cosign HELM=$(TOOLS)/helm go test -count=1 -timeout $(TEST_TIMEOUT) ./...

.PHONY: cosign
cosign:
	@go build -C release/cosign -o $(TOOLS)/cosign github.com/sigstore/cosign/v2/cmd/cosign

.PHONY: test preflight-test
preflight-test:
	@sh test/preflight/preflight.sh test cc
test: preflight-test cluster-build tools ## Run all tests: unit tests, tests against a real API server, and each fuzzing target for some seconds
	CGO_ENABLED=1 GOLANGCI_LINT=$(TOOLS)/golangci-lint go test -race -timeout $(TEST_TIMEOUT) ./...
	cd test/cluster && CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) ./...
	cd test/oracle && CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) ./...
	@# Without -race: most of it computes, without anything that is shared.
	cd webhook/model && HELM=$(TOOLS)/helm go test -timeout $(TEST_TIMEOUT) .
	@# The tests of signatures need cosign, which takes minutes to build: make test-release.
	cd release && HELM=$(TOOLS)/helm CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) -skip '^TestSigned' ./...
	@$(MAKE) --no-print-directory fuzz FUZZTIME=3000x

.PHONY: chart-test
chart-test: tools cluster-build ## Test the chart: helm-unittest, values, Kubernetes schemas, rules of scanners, drift as Argo CD and Flux see it
	$(TOOLS)/helm-unittest --strict $(CHART)
	go test ./test/chart -count=1
	cd test/drift && go test . -count=1 -timeout $(TEST_TIMEOUT)
	cd test/render && go test . -count=1

.PHONY: e2e
e2e: tools ## Install the image and the chart on a real node and test everything (as root; E2E_EXISTING=1 KUBECONFIG= E2E_IMAGE= to use an existing cluster)
	E2E=1 go test ./test/installed -count=1 -v -timeout 60m

# As many states as possible at the same time: they wait for minutes.
.PHONY: e2e-hop
e2e-hop: ## Break and renew the certificates of kube-apiservers and a kubelet on a real node, while agents watch (as root, about an hour)
	E2E_HOP=1 go test ./test/connection -count=1 -v -parallel 16 -timeout 90m
	FAULTS=1 go test ./test/faults -count=1 -v -run '^TestConnectionFaults$$' -parallel 7 -timeout 60m

.PHONY: docs-test
docs-test: tools ## Run the commands in the documentation, on a real node with the guard installed (as root)
	go test ./test/docs -count=1
	E2E=1 go test ./test/installed -run 'TestDocs|TestGettingStarted' -count=1 -v -timeout 30m

.PHONY: test-monitoring
test-monitoring: tools cluster-build prometheus ## Test the alerts with promtool, and the dashboard with a Prometheus that scrapes the real programs
	PROMETHEUS=$$(if [ -x $(PROMETHEUS)/prometheus ]; then echo $(PROMETHEUS); else dirname "$$(command -v promtool)"; fi) go test ./test/monitoring -count=1 -v -timeout 30m

# Debian's package is unpacked, not installed, so no service starts.
PROMETHEUS := $(TOOLS)/prometheus/usr/bin
.PHONY: prometheus
prometheus:
	@[ -x $(PROMETHEUS)/promtool ] || command -v promtool prometheus >/dev/null || { \
		mkdir -p $(TOOLS)/prometheus && cd $(TOOLS)/prometheus && \
		{ apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; } && \
		dpkg -x prometheus_*.deb . && rm prometheus_*.deb; \
	} || { echo "make test-monitoring needs prometheus and promtool: install them" >&2; exit 1; }

.PHONY: test-unit
test-unit: ## Run the unit tests only; they need no API server
	CGO_ENABLED=1 go test -race ./pkg/... ./internal/... ./webhook/... ./nodeagent/... ./test/openshift/...

.PHONY: model
model: tools cluster-build ## Check the model of the guard against its code and CEL: all states, a replay, and the code with single faults
	cd webhook/model && HELM=$(TOOLS)/helm go test . -count=1 -v -timeout 90m -whole -replays 1000 -rapid.checks=3000
	cd webhook/model && HELM=$(TOOLS)/helm go run ./mutants

.PHONY: test-rotation
test-rotation: ## Rotate certificates 2000 times in every way, with faults, while the agent watches (some minutes)
	go test ./test/rotation -count=1 -v -timeout 60m -rotations 2000

# Go's fuzzer sometimes reports the end of its fuzz time as a failure ("context
# deadline exceeded", without a failing input); ignore that. A count (3000x) avoids it.
.PHONY: fuzz
fuzz: ## Fuzz every parser and the admission handler, FUZZTIME (60s) each; failing inputs are kept in testdata/fuzz
	@out=$$(mktemp) && trap 'rm -f "$$out"' EXIT && \
	grep -rno --include=*_test.go '^func Fuzz[A-Za-z]*' pkg internal webhook nodeagent | sed -E 's#^(.*)/[^/]*:[0-9]+:func #./\1 #' | \
		while read -r package name; do \
			echo "$$name in $$package"; \
			go test "$$package" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s </dev/null >"$$out" 2>&1 && tail -n 3 "$$out" && continue; \
			cat "$$out"; \
			grep -q '^    context deadline exceeded$$' "$$out" && ! grep -q 'Failing input' "$$out" || exit 1; \
		done

.PHONY: test-fips
test-fips: ## Run the unit tests with Go's FIPS 140-3 module, then again with fips140=only, which rejects other algorithms
	GODEBUG=fips140=on go test ./pkg/... ./internal/... ./webhook/... ./nodeagent/...
	GODEBUG=fips140=only go test ./pkg/... ./internal/... ./webhook/... ./nodeagent/...

.PHONY: vuln
vuln: ## Check the code that the programs call for known vulnerabilities (queries vuln.go.dev)
	@go build -C tools -o ../.tools/ golang.org/x/vuln/cmd/govulncheck
	$(TOOLS)/govulncheck ./webhook/... ./nodeagent/...

# For shorter runs: BENCH_WEBHOOK="-rounds 2 -requests 50" BENCH_AGENT="-runs 1 -idle 30s -noise 10s" BENCH_SWEEP="-runs 1"
# BENCH_AUDIT="-runs 1 -idle 30s".
BENCH_WEBHOOK ?=
BENCH_AGENT ?=
BENCH_SWEEP ?=
BENCH_AUDIT ?=
.PHONY: bench
bench: MARKDOWN := -markdown docs/benchmarks.md
bench: bench-webhook bench-others bench-agent bench-sweep bench-audit ## Run all benchmarks (about an hour); write tables to docs/benchmarks.md and data to dist/bench-*.json

.PHONY: test-faults
test-faults: ## Run both programs with injected faults and a real API server (some minutes)
	FAULTS=1 go test ./test/faults -count=1 -v -run '^TestFaults$$' -parallel 6 -timeout 60m

DURATION ?= 20m
.PHONY: soak
soak: ## Run both programs under load and rotations, and print their growth per hour (DURATION=20m)
	@go run ./test/soak -duration $(DURATION) $(SOAK_FLAGS)

.PHONY: bench-webhook
bench-webhook: ## Benchmark admission, compared with no webhook, policies only, no-op webhooks and Gatekeeper
	@go run ./test/bench/webhook -json $(DIST)/bench-webhook.json $(MARKDOWN) $(BENCH_WEBHOOK)

.PHONY: bench-others
bench-others: ## Benchmark writes that the guard does not check, with the guard installed and without it
	@go run ./test/bench/others -json $(DIST)/bench-others.json $(MARKDOWN) $(BENCH_OTHERS)

.PHONY: bench-agent
bench-agent: ## Benchmark the agent: memory, CPU, time to report, cost of files and events
	@go run ./test/bench/agent -json $(DIST)/bench-agent.json $(MARKDOWN) $(BENCH_AGENT)

.PHONY: bench-sweep
bench-sweep: ## Benchmark the audit's sweep of 5,000 kubelets: time, CPU, memory (as root, or with user namespaces)
	@go run ./test/bench/sweep -json $(DIST)/bench-sweep.json $(MARKDOWN) $(BENCH_SWEEP)

.PHONY: bench-audit
bench-audit: ## Benchmark the audit against the number of protected Secrets and of API servers: time, CPU, memory
	@go run ./test/bench/audit -json $(DIST)/bench-audit.json $(MARKDOWN) $(BENCH_AUDIT)

# For a part: BENCH_AGAINST="-parts agent -rounds 5".
COMMIT ?=
BENCH_AGAINST ?=
.PHONY: bench-against
bench-against: ## Compare this tree with an earlier commit: agent, admission, cold demo (COMMIT=46b028d; hours)
	@go run ./test/bench/against -commit "$(COMMIT)" -json $(DIST)/bench-against.json $(MARKDOWN) $(BENCH_AGAINST)

.PHONY: lint
lint: tools ## Lint the code, the import rules, the chart and the wording
	go run ./test/style
	$(TOOLS)/golangci-lint config verify
	$(TOOLS)/golangci-lint run ./...
	cd test/cluster && $(TOOLS)/golangci-lint run ./...
	cd test/oracle && $(TOOLS)/golangci-lint run ./...
	cd release && $(TOOLS)/golangci-lint run ./...
	cd test/drift && $(TOOLS)/golangci-lint run ./...
	cd test/render && $(TOOLS)/golangci-lint run ./...
	cd webhook/model && $(TOOLS)/golangci-lint run ./...
	$(TOOLS)/helm lint --strict $(CHART)
	go mod tidy -diff
	cd tools && go mod tidy -diff
	cd test/cluster && go mod tidy -diff
	cd test/oracle && go mod tidy -diff
	cd release && go mod tidy -diff
	cd release/cosign && go mod tidy -diff
	cd test/drift && go mod tidy -diff
	cd test/render && go mod tidy -diff
	cd webhook/model && go mod tidy -diff
	cd test/envtest && go mod tidy -diff
	cd test/bench/gatekeeper && go mod tidy -diff
	@# The go command adds checksums that go.work.sum lacks.
	GOWORK=$(CURDIR)/test/demo/go.work go list -deps ./test/demo ./webhook ./nodeagent ./test/cluster ./test/render tool >/dev/null
	git diff --exit-code -- test/demo/go.work.sum

# The tests that have a part of the page run, one package at a time: all write the same file.
.PHONY: messages
messages: ## Write docs/messages.md: what findings, refusals, Events, log messages and flags say
	@files=$$(grep -rl --include=*_test.go 'messages\.Record(' $(wildcard internal pkg webhook nodeagent test)) && \
	tests=$$(awk '/^func Test/ {sub(/\(.*/, "", $$2); name = $$2} /messages\.Record\(/ {print name}' $$files | sort -u | paste -sd '|') && \
	packages=$$(dirname $$files | sort -u | sed 's#^#./#') && \
	go test -p 1 -count=1 -run "^($$tests)$$" $$packages -update

.PHONY: generate
generate: tools messages ## Generate the README, policies and default protectedSecrets of the chart, the configuration reference, the control mapping, the messages and the index of decisions
	go run ./test/docs/generate
	$(TOOLS)/helm-docs --chart-search-root charts --sort-values-order file --log-level warning

.PHONY: verify
verify: generate ## Check that generated files are up to date and that every chart value has a description
	git diff --exit-code -- charts docs
	! grep -n '|  |$$' charts/*/README.md

.PHONY: fmt
fmt: tools ## Format the code
	$(TOOLS)/golangci-lint fmt ./...
	cd test/cluster && $(TOOLS)/golangci-lint fmt ./...
	cd test/oracle && $(TOOLS)/golangci-lint fmt ./...
	cd release && $(TOOLS)/golangci-lint fmt ./...
	cd test/drift && $(TOOLS)/golangci-lint fmt ./...
	cd test/render && $(TOOLS)/golangci-lint fmt ./...

.PHONY: cluster-build
cluster-build: ## Build etcd, kube-apiserver and kubectl, once (8 to 15 minutes on 2 cores)
	@go run -C test/cluster . build

.PHONY: cluster-up
cluster-up: ## Start a real control plane in the background and print how to use it
	@go run -C test/cluster . up

.PHONY: cluster-down
cluster-down: ## Stop the control plane and delete its data
	@go run -C test/cluster . down

.PHONY: node-up
node-up: ## Start a control plane and a real node (kubelet, containerd and more; as root on Debian), and print how to use them
	@go run -C test/cluster . up --node

.PHONY: node-load
node-load: ## Load dist/image.tar into the node of make node-up
	@go run -C test/cluster . load --dir $(NODE_DIR) $(DIST)/image.tar

.PHONY: node-down
node-down: ## Stop the node and delete everything that it created
	@go run -C test/cluster . down --node

.PHONY: clean
clean: demo-down node-down ## Remove build results; the binaries of the test cluster stay in the user's cache
	rm -rf $(BIN) $(DIST) $(TOOLS) .demo .node

# tools/go.mod pins the versions; go build rebuilds a tool only if necessary.
.PHONY: tools
tools:
	@go build -C tools -o ../.tools/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint helm.sh/helm/v4/cmd/helm \
		github.com/yannh/kubeconform/cmd/kubeconform github.com/helm-unittest/helm-unittest/cmd/helm-unittest \
		github.com/norwoodj/helm-docs/cmd/helm-docs
