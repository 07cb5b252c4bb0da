# The node as an image: one static binary, its notices, certificates, and no shell.
# The base images can be replaced, for example by those of a mirror.
ARG GO_IMAGE=golang:1.26.8@sha256:9d2f36f06329b2a141b9db99ffa32765cf695ee57b813ca29e245e8670bcbfff
ARG NODE_IMAGE=node:22.21.1-slim@sha256:25b3eb23a00590b7499f2a2ce939322727fcce1b15fdd69754fcd09536a3ae2c

# Both stages run on the builder's platform, whatever the target platform. The default
# is for builders that do not set it.
FROM --platform=${BUILDPLATFORM:-linux/amd64} ${NODE_IMAGE} AS client
WORKDIR /src
COPY scripts/client scripts/
COPY internal/client internal/client
RUN scripts/client

FROM --platform=${BUILDPLATFORM:-linux/amd64} ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=client /src/internal/client/dist internal/client/dist
ARG TARGETOS=linux
ARG TARGETARCH
ARG REVISION=unknown
ENV CGO_ENABLED=0
RUN export GOOS=$TARGETOS GOARCH=${TARGETARCH:-$(go env GOARCH)} && \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.revision=$REVISION" -o /out/rejoin ./cmd/node && \
    scripts/notices /out/licenses

FROM scratch
LABEL org.opencontainers.image.title="Rejoin" \
      org.opencontainers.image.description="A horizontally scaled server for Socket.IO v4 clients" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out /
USER 65532:65532
EXPOSE 3000 3001
HEALTHCHECK --interval=5s --timeout=4s --start-period=15s --retries=3 \
    CMD ["/rejoin", "-probe", "http://127.0.0.1:3001/readyz"]
ENTRYPOINT ["/rejoin"]
