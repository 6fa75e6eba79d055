# SPDX-License-Identifier: Apache-2.0

# One image with both programs: static, without a shell, not root by default.
# (The agent's Pod runs as root by its own security context, since the files
# that it reads belong to root.) Other platforms are cross-compiled, nothing is
# emulated. The same commit and the same Go give the same programs.
# Where neither is to be had from its usual place: an image with Go, a module proxy.
ARG GO_IMAGE=golang:1.26
FROM --platform=$BUILDPLATFORM $GO_IMAGE AS build
ARG TARGETOS=linux
ARG TARGETARCH
ARG GOPROXY
# A version of Go's FIPS 140-3 module, such as v1.0.0, makes the FIPS variant:
# built with that module, and in FIPS mode unless GODEBUG says otherwise.
ARG GOFIPS140=off
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The commit is stamped into the programs from .git; see pkg/version.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOFIPS140=$GOFIPS140 \
    go build -trimpath -ldflags="-s -w" -o /out/ ./webhook ./nodeagent

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kubelet-https-guard" \
      org.opencontainers.image.description="Keeps and proves CIS OpenShift 1.2.4 (1.2.2 from v1.9), Use https for kubelet connections" \
      org.opencontainers.image.source="https://github.com/kubelet-https-guard/kubelet-https-guard" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/webhook /out/nodeagent /
USER 65532:65532
