# SPDX-License-Identifier: Apache-2.0

# One image with both programs: static, without a shell, non-root by default. (The
# security context of the agent's Pod sets root, since root owns the files that it
# reads.) Other platforms are cross-compiled, without emulation. The same commit and
# the same Go version give the same binaries.
# Set GO_IMAGE and GOPROXY if the default registry or module proxy is not reachable.
ARG GO_IMAGE=golang:1.27
FROM --platform=$BUILDPLATFORM $GO_IMAGE AS build
ARG TARGETOS=linux
ARG TARGETARCH
ARG GOPROXY
# Set a version of Go's FIPS 140-3 module, such as v1.0.0, to build the FIPS variant.
# It uses that module and runs in FIPS mode, unless GODEBUG overrides it.
ARG GOFIPS140=off
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# go build reads the commit from .git; see internal/version.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOFIPS140=$GOFIPS140 \
    go build -trimpath -ldflags="-s -w" -o /out/ ./webhook ./nodeagent

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kubelet-https-guard" \
      org.opencontainers.image.description="Enforces and verifies CIS OpenShift 1.2.4 (1.2.2 from v1.8), Use https for kubelet connections" \
      org.opencontainers.image.source="https://github.com/kubelet-https-guard/kubelet-https-guard" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/webhook /out/nodeagent /
USER 65532:65532
