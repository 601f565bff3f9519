# What people type. Each target is a few lines; what is longer stands in ci/.
#
#   make            release build, asciinema's player embedded
#   make demo       two recorders, a real session, the first recorder is killed, nothing is lost
#   make check      what every change must pass
#   make full       the same at full length, with the measurements
#   make interop    other people's peers: Tailscale's Go package, a Go recorder, curl, nghttp
#   make bench      measurements as ratios within one run
#   make install    PREFIX=/usr/local DESTDIR=
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
NPM ?= npm
TARGET := $(or $(CARGO_TARGET_DIR),target)

# The first target, so plain `make`.
.PHONY: build
build: web/node_modules/.package-lock.json
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked -p castkeep-ffi

# `ci`, not `install`: exactly what the lock file names.
web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && $(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: demo check full interop bench header fmt clean
demo: web/node_modules/.package-lock.json
	$(CARGO) build --release --locked
	$(TARGET)/release/castkeep demo

check:
	ci/check

full:
	ci/full

interop:
	ci/interop

bench:
	ci/bench --write

header:
	ci/header

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
	rm -rf build web/node_modules

# Installs what `make` built; never builds, because it is what runs as root.
.PHONY: install
install:
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(PREFIX)/lib"
	install -m 0755 "$(TARGET)/release/castkeep" "$(DESTDIR)$(PREFIX)/bin/castkeep"
	install -m 0644 include/castkeep.h "$(DESTDIR)$(PREFIX)/include/castkeep.h"
	install -m 0644 "$(TARGET)/release/libcastkeep.a" "$(DESTDIR)$(PREFIX)/lib/libcastkeep.a"
	install -m 0755 "$(TARGET)/release/libcastkeep.so" "$(DESTDIR)$(PREFIX)/lib/libcastkeep.so"
	for page in $(wildcard man/*.1); do \
	    install -D -m 0644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man1/$$(basename "$$page")" || exit 1; \
	done
