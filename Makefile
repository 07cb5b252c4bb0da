# Each target calls what CI calls. `make` alone lists them.
GO ?= go
LINT = $(CURDIR)/bin/golangci-lint

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: ## build and start the node, with the demo page at http://127.0.0.1:3000/
	@scripts/client || echo "Continuing without the JavaScript client; the page explains how to add it."
	$(GO) build -o rejoin ./cmd/node
	REJOIN_LOG_FORMAT=$${REJOIN_LOG_FORMAT:-console} ./rejoin

cluster: ## three nodes, Redis and a balancer on this machine, without containers: http://127.0.0.1:3000/
	@scripts/cluster

build: ## build the binary ./rejoin
	$(GO) build -trimpath -o rejoin ./cmd/node

client: ## fetch the JavaScript client that the node serves (npm)
	scripts/client

setup: ## install the dependencies of the tests
	scripts/setup

# Parallel tests wait more than they compute. The cache of go test does not see what tests/
# reads of other modules, so it is not asked there. Its packages run one after another: the
# attacks of tests/security would starve the nodes of the others.
test: setup ## all tests, with the race detector; REDIS=container: Redis in one
	$(GO) test -race -p 3 -parallel 4 -timeout 10m ./...
	cd tests && $(GO) test -count=1 -race -p 1 -parallel 3 -timeout 25m ./...
	cd bench && $(GO) vet ./...
	cd examples && $(GO) vet ./...

chaos: setup ## continuity under faults for DURATION (10m) over each form of Redis, and the other long tests
	cd tests && REJOIN_TEST_CHAOS=$(or $(DURATION),10m) $(GO) test -count=1 -race -v -timeout 3h -run 'TestContinuity|TestExactlyOnce|TestBigReplay|TestThroughBalancer|TestRollingUpdate|TestRecovery|TestConnects|TestBurst|TestConcurrentClaims' ./integration/

attack: setup ## the attacks of tests/security at the size that fills a node
	cd tests && REJOIN_TEST_ATTACK=1 $(GO) test -count=1 -v -timeout 10m -run TestAttacks ./security/
	cd tests && REJOIN_TEST_ATTACK=1 $(GO) test -count=1 -race -v -timeout 1h -skip TestAttacks ./security/

k8s: ## print the Kubernetes manifests of OVERLAY (dev)
	@cd tests && $(GO) tool kustomize build ../k8s/overlays/$(or $(OVERLAY),dev)

compose-test: ## the cluster of docker-compose.yml: start it, chat, kill a node
	scripts/compose-test

lint: ## formatting, vet and the linter
	scripts/lint

cross: ## build for every supported platform
	scripts/cross

fuzz: ## run every fuzz target for FUZZTIME (20s)
	scripts/fuzz

bench: ## benchmark this node against the npm package socket.io
	bench/run.sh

vuln: ## check dependencies for known vulnerabilities (needs the internet)
	$(GO) build -C tools -o $(CURDIR)/bin/govulncheck golang.org/x/vuln/cmd/govulncheck
	bin/govulncheck ./...

.PHONY: help run cluster build client setup test chaos attack k8s compose-test lint cross fuzz bench vuln
