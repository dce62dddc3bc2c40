# strata: see README.md. Every target works from a clean clone; those that need
# root take it through sudo when they are run by an ordinary user, all but install
# and uninstall: they write below PREFIX as whoever runs them.

GO      ?= go
BIN     := bin
PREFIX  ?= /usr
DESTDIR ?=
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/strata-project/strata/internal/version.Version=$(VERSION)
PROGRAMS := strata stratad strata-keeper strata-agent strata-vmagent strata-volume
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo "sudo -E env PATH=$$PATH")

export CGO_ENABLED = 0

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing on this Debian or Ubuntu machine
	@scripts/setup

.PHONY: build
build: ## build the programs into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(PROGRAMS:%=./cmd/%)

.PHONY: demo
demo: setup build ## run the tour in a private root, and clean up after it
	@$(AS_ROOT) demo/tour

.PHONY: test
test: build ## install what is missing, and run the tests, with the contract at zones, guests and machines
	@scripts/setup tests
	@$(AS_ROOT) scripts/test

GUEST_TESTS ?= ./internal/kernel ./internal/kernel/bootdisk ./internal/qemu/... ./internal/screen ./internal/cli ./internal/vmagent ./internal/stratum/guest ./internal/stratum/machine ./test/contract ./test/foreign ./test/move

.PHONY: test-guest
test-guest: build ## run all tests that boot machines
	@scripts/setup tests
	@$(AS_ROOT) env STRATA_MACHINES=1 STRATA_STRATA=guest,machine STRATA_BIN=$$PWD/bin $(GO) test -p 1 -count=1 -timeout 60m $(GUEST_TESTS)
	@$(AS_ROOT) env STRATA_MACHINES=1 STRATA_BIN=$$PWD/bin $(GO) test -count=1 -timeout 20m -run Guests ./test/crash ./test/script
	@$(AS_ROOT) env STRATA_MACHINES=1 STRATA_BIN=$$PWD/bin $(GO) test -count=1 -timeout 20m -run 'EveryStratum|AGuarantee' ./test/share
	@$(AS_ROOT) env STRATA_MACHINES=1 STRATA_BIN=$$PWD/bin $(GO) test -count=1 -timeout 20m -run 'OwnKernel|AGuestIs' ./test/bomb

.PHONY: test-v2
test-v2: build ## run the zone's tests on cgroup v2 and an older kernel, inside QEMU (no KVM needed)
	@scripts/setup tests
	@$(AS_ROOT) scripts/test-v2 $(V2_FLAGS)

.PHONY: test-nested
test-nested: build ## run tests of guests by real KVM, which an emulated machine has (none needed here)
	@scripts/setup tests
	@$(AS_ROOT) scripts/test-v2 --nested $(NESTED_FLAGS)

.PHONY: bench
bench: build ## compare with the peers installed on this host (apt install runc podman)
	@$(AS_ROOT) $(GO) run ./bench

.PHONY: generate
generate: ## write api/openapi.json and docs/reference anew
	$(GO) generate ./...

.PHONY: lint
lint: ## formatting, vet, the import rules, and staticcheck where it is installed
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...
	$(GO) test ./test/imports
	@if command -v staticcheck >/dev/null; then staticcheck ./...; \
	else echo "staticcheck is not installed: go install honnef.co/go/tools/cmd/staticcheck@latest"; fi

.PHONY: install
install: build ## install programs, systemd units and shell completions below PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/strata
	install -m 0755 $(BIN)/strata $(BIN)/stratad $(DESTDIR)$(PREFIX)/bin/
	install -m 0755 $(BIN)/strata-keeper $(BIN)/strata-agent $(BIN)/strata-vmagent $(BIN)/strata-volume $(DESTDIR)$(PREFIX)/lib/strata/
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in strata.service strata.socket; do \
		sed 's|@PREFIX@|$(PREFIX)|g' init/$$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; \
		chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit; done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BIN)/strata completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/strata
	$(BIN)/strata completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_strata
	$(BIN)/strata completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/strata.fish
	@[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || { getent group strata >/dev/null || $(AS_ROOT) groupadd --system strata; systemctl daemon-reload; echo "enable it with: systemctl enable --now strata.socket"; echo "after an upgrade: systemctl try-restart strata.service, under which environments go on"; }

.PHONY: uninstall
uninstall: ## take back what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/strata $(DESTDIR)$(PREFIX)/bin/stratad
	rm -rf $(DESTDIR)$(PREFIX)/lib/strata
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/strata.service $(DESTDIR)$(PREFIX)/lib/systemd/system/strata.socket
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/strata $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_strata $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/strata.fish

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
