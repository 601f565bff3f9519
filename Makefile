# What people type. Each target is a few lines; what is longer stands in ci/.
#
#   make            release build, asciinema's player embedded
#   make demo       two recorders, a real session, the first recorder is killed, nothing is lost
#   make check      what every change must pass
#   make full       the same at full length, with the measurements
#   make interop    other people's peers: Tailscale's Go package, a Go recorder, curl, nghttp
#   make bench      measurements as ratios within one run
#   make dist-c     the C library, packed for each target that can be built here
#   make install    PREFIX=/usr/local LIBDIR=$(PREFIX)/lib DESTDIR=
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
# What the C library has: nothing for the plain client, http2, tls.
C_FEATURES ?= http2 tls
C_LIBRARY ?= build/c
CARGO ?= cargo
NPM ?= npm
TARGET := $(or $(CARGO_TARGET_DIR),target)

# The first target, so plain `make`.
.PHONY: build
build: web/node_modules/.package-lock.json
	$(CARGO) build --release --locked
	ci/clib --features "$(C_FEATURES)" $(C_LIBRARY)

# `ci`, not `install`: exactly what the lock file names.
web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && $(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: demo check full interop bench header dist-c fmt clean
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

dist-c:
	ci/dist-c

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
	rm -rf build web/node_modules

# Installs what `make` built; never builds, because it is what runs as root.
.PHONY: install
install:
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(LIBDIR)/pkgconfig"
	install -m 0755 "$(TARGET)/release/castkeep" "$(DESTDIR)$(PREFIX)/bin/castkeep"
	install -m 0644 "$(C_LIBRARY)"/include/*.h "$(DESTDIR)$(PREFIX)/include/"
	install -m 0644 "$(C_LIBRARY)/lib/libcastkeep.a" "$(DESTDIR)$(LIBDIR)/"
	cp -P "$(C_LIBRARY)"/lib/libcastkeep.so* "$(DESTDIR)$(LIBDIR)/"
	sed -e 's|^prefix=.*|prefix=$(PREFIX)|' -e 's|^libdir=.*|libdir=$(LIBDIR)|' "$(C_LIBRARY)/lib/pkgconfig/castkeep.pc" \
	    >"$(DESTDIR)$(LIBDIR)/pkgconfig/castkeep.pc"
	for page in $(wildcard man/*.[1-8]); do \
	    section=$${page##*.}; \
	    install -D -m 0644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$$section/$$(basename "$$page")" || exit 1; \
	done
