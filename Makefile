# make          builds the command, target/release/pgwake, and the C library, in target/lib
# make install  copies what is built, and builds nothing: PREFIX= (/usr/local), BINDIR=, LIBDIR=, INCLUDEDIR=, DATADIR=,
#               MANDIR=, also in lower case, and DESTDIR=; make uninstall takes it away
# make deb      a Debian package, by cargo-deb
# make test-debian   a new user's steps and that package, in an empty Debian
# make demo     shows it at work on a throw-away PostgreSQL of its own
# make test     everything that must hold, as CI runs it
# make sanitize the same tests under AddressSanitizer
# make regress PGSRC=DIRECTORY   PostgreSQL's own regression files, from its sources, with the DDL triggers on
# make bench    pgwake beside a bare C loop over the same libpq
# make lib      the C library alone
# make extension   the server extension pgwake_ddl, built and installed for PG_CONFIG= (the one in PATH)
# Each installs what it needs and is missing, or names it.

# Without what make says to a make: a cargo takes it for its own.
CARGO = MAKEFLAGS= PATH="$$PATH:$$HOME/.cargo/bin" $(NICE) cargo
# The command and the library with the system's libpq instead of the bundled one.
SYSTEM_LIBPQ = --no-default-features --features command

# Only the C library's functions.
ONLY_LIB = --lib --release --no-default-features --crate-type staticlib
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Counts changes that a program built before would not survive.
SO = libpgwake.so.0

prefix = /usr/local
PREFIX = $(prefix)
bindir = $(PREFIX)/bin
BINDIR = $(bindir)
libdir = $(PREFIX)/lib
LIBDIR = $(libdir)
includedir = $(PREFIX)/include
INCLUDEDIR = $(includedir)
datadir = $(PREFIX)/share
DATADIR = $(datadir)
mandir = $(DATADIR)/man
MANDIR = $(mandir)
BASHDIR = $(DATADIR)/bash-completion/completions
ZSHDIR = $(DATADIR)/zsh/site-functions
FISHDIR = $(DATADIR)/fish/vendor_completions.d

.PHONY: all demo test test-debian check regress sanitize sanitize-c bench peers lib lib-test install uninstall deb \
  extension setup setup-demo setup-deb setup-test tested tested-bundled tested-system built
# But for what `test` does side by side.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif

all: lib
	$(CARGO) build --release
	@mkdir -p target/completions
	@for shell in bash zsh fish; do target/release/pgwake completions $$shell >target/completions/$$shell || exit; done

demo: setup-demo
	@$(CARGO) build --release
	@target/release/pgwake demo

# Tests wait for a server most of the time. So more of them run at once than there are cores; and beside them goes on,
# with less right to the processor, what they can do without. Each part is printed when it is over.
WAITING = RUST_TEST_THREADS=4
ASIDE = nice -n 19
# What is neither shipped nor measured here.
SOONER = CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
test: setup-test
	@$(MAKE) --no-print-directory -j2 -Otarget SIDE_BY_SIDE=yes tested

tested: tested-system check

tested-bundled:
	$(WAITING) tests/with_extension.sh env $(CARGO) test --features capi

# The command is at the same place for both, so one is built when the other is not needed any more.
tested-system: tested-bundled built
	$(WAITING) PGWAKE_PEERS=target/peers PGWAKE_INSTALLED=$(CURDIR)/target/installed \
	  tests/with_extension.sh env $(CARGO) test $(SYSTEM_LIBPQ)

built:
	@$(MAKE) --no-print-directory SIDE_BY_SIDE= NICE='$(ASIDE)' all
	@$(MAKE) --no-print-directory SIDE_BY_SIDE= NICE='$(ASIDE) env $(SOONER)' peers
	@$(MAKE) --no-print-directory SIDE_BY_SIDE= install PREFIX=$(CURDIR)/target/installed

test-debian:
	tests/empty_debian.sh

check: NICE = $(ASIDE)
check: setup-test
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features capi-test,peer -- -D warnings
	$(CARGO) clippy --all-targets $(SYSTEM_LIBPQ) -- -D warnings
	$(CARGO) clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --no-default-features

# One object, in which only the functions of the header are visible; and the same as a shared library.
# LIB_FEATURES=schedules: with cron expressions.
lib: setup
	$(CARGO) rustc $(ONLY_LIB) --features bundled,capi,$(LIB_FEATURES)
	@mkdir -p target/lib
	ffi/pack.sh target/release/libpgwake.a ffi/include/pgwake.h target/lib/libpgwake.a
	cc -shared -o target/lib/$(SO) -Wl,-soname,$(SO) -Wl,--version-script=ffi/libpgwake.map -Wl,-z,nodelete,-z,now \
	  -Wl,--whole-archive target/lib/libpgwake.a -Wl,--no-whole-archive -lssl -lcrypto -lm

# What is not shipped: on the system's libpq, and with a function that panics.
lib-test: setup-test
	@mkdir -p target/lib-test
	$(CARGO) rustc $(ONLY_LIB) --features capi-test
	ffi/pack.sh target/release/libpgwake.a ffi/include/pgwake.h target/lib-test/libpgwake.a pgwake_test_panic

# For root, too, who has no Rust, and to whom no file here should belong.
install:
	@for file in target/release/pgwake target/lib/libpgwake.a target/lib/$(SO); do [ -f $$file ] || \
	  { echo "pgwake: $$file is not built: run \`make\` first, as yourself, then this again" >&2; exit 1; }; done
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(LIBDIR)/pkgconfig $(INCLUDEDIR)/pgwake $(MANDIR)/man1 $(MANDIR)/man3)
	install -s target/release/pgwake $(DESTDIR)$(BINDIR)
	install -m 644 target/lib/libpgwake.a $(DESTDIR)$(LIBDIR)
	install target/lib/$(SO) $(DESTDIR)$(LIBDIR)
	ln -sf $(SO) $(DESTDIR)$(LIBDIR)/libpgwake.so
	install -m 644 ffi/include/pgwake.h $(DESTDIR)$(INCLUDEDIR)
	install -m 644 ffi/adapters/*.h $(DESTDIR)$(INCLUDEDIR)/pgwake
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBDIR@|$(call below_prefix,$(LIBDIR))|' \
	  -e 's|@INCLUDEDIR@|$(call below_prefix,$(INCLUDEDIR))|' ffi/pgwake.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/pgwake.pc
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/pgwake.pc
	install -m 644 ffi/man/pgwake.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 ffi/man/pgwake.3 $(DESTDIR)$(MANDIR)/man3
	@if [ -d target/completions ]; then set -x; \
	  install -D -m 644 target/completions/bash $(DESTDIR)$(BASHDIR)/pgwake && \
	  install -D -m 644 target/completions/zsh $(DESTDIR)$(ZSHDIR)/_pgwake && \
	  install -D -m 644 target/completions/fish $(DESTDIR)$(FISHDIR)/pgwake.fish; fi
	@$(REMEMBER)

# pkg-config can put another prefix in.
below_prefix = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))

# The running system finds a shared library by a list that only root can make anew.
REMEMBER = PATH="$$PATH:/sbin:/usr/sbin"; [ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || \
  ! ldconfig -NXv 2>/dev/null | grep -q '^$(LIBDIR):' || ldconfig

# Directories that may be there without us. What lies above PREFIX is the user's.
KEPT = $(if $(DESTDIR),, $(patsubst %/,%,$(dir $(PREFIX))) /opt /usr $(foreach usual,/usr /usr/local, \
  $(addprefix $(usual)/,bin include lib share share/man)))

# Goes up from each directory as long as it is empty and not kept.
uninstall:
	rm -f $(addprefix $(DESTDIR),$(BINDIR)/pgwake $(addprefix $(LIBDIR)/,libpgwake.a libpgwake.so $(SO) pkgconfig/pgwake.pc) \
	  $(INCLUDEDIR)/pgwake.h $(MANDIR)/man1/pgwake.1 $(MANDIR)/man3/pgwake.3 \
	  $(BASHDIR)/pgwake $(ZSHDIR)/_pgwake $(FISHDIR)/pgwake.fish)
	rm -rf $(DESTDIR)$(INCLUDEDIR)/pgwake
	@for directory in $(BINDIR) $(LIBDIR)/pkgconfig $(INCLUDEDIR) $(MANDIR)/man1 $(MANDIR)/man3 $(BASHDIR) $(ZSHDIR) \
	  $(FISHDIR); do \
	  while case '$(KEPT) ' in *" $$directory "*) false ;; *) rmdir $(DESTDIR)$$directory 2>/dev/null ;; esac; do \
	    directory=$${directory%/*}; done; done
	@$(REMEMBER)

# Needs the server's headers (Debian: postgresql-server-dev-all), and the right to write into its directories. What was
# built for another version would not work.
PG_CONFIG = pg_config
extension:
	$(MAKE) -C ffi/extension clean PG_CONFIG=$(PG_CONFIG)
	$(MAKE) -C ffi/extension install PG_CONFIG=$(PG_CONFIG)

# The tree of a Debian system, which cargo-deb puts into a package.
deb: setup-deb all
	@command -v cargo-deb >/dev/null || [ -x $$HOME/.cargo/bin/cargo-deb ] || \
	  { echo 'pgwake: cargo-deb is missing: cargo install cargo-deb' >&2; exit 1; }
	rm -rf target/package
	$(MAKE) --no-print-directory install DESTDIR=target/package PREFIX=/usr \
	  LIBDIR=/usr/lib/$$(cc -print-multiarch) ZSHDIR=/usr/share/zsh/vendor-completions
	$(CARGO) deb --no-build

# The programs of a side-by-side measurement, on the system's libpq: pgwake from Rust and from C, and the bare C loop.
peers: setup-test lib-test
	@mkdir -p target/peers
	$(CARGO) build --release --bin peer --no-default-features --features peer
	cp target/release/peer target/peers/pgwake
	cc -O2 -Wall -Wextra -Werror -o target/peers/c-libpq-epoll benches/c_libpq_epoll.c \
	  $$(pkg-config --cflags --libs libpq)
	cc -O2 -Wall -Wextra -Werror -Iffi/include -o target/peers/pgwake-c benches/peer.c target/lib-test/libpgwake.a \
	  $$(pkg-config --libs libpq) -lm

regress: setup-test
	$(if $(PGSRC),PGWAKE_PGSRC=$(abspath $(PGSRC))) $(CARGO) test $(SYSTEM_LIBPQ) --test it regress::

# The tests under AddressSanitizer, which also finds leaks. Those that bound the memory are left out: it needs its own.
SANITIZED = RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test $(SYSTEM_LIBPQ) \
  --target x86_64-unknown-linux-gnu --target-dir target/sanitized --tests --no-fail-fast
sanitize: setup-test sanitize-c
	$(SANITIZED) -- --skip memory

# The C interface, with Rust and libpq inside of the sanitizer.
SANITIZED_LIB = target/sanitized/x86_64-unknown-linux-gnu/debug/libpgwake.a
sanitize-c: setup-test
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CFLAGS=-fsanitize=address $(CARGO) rustc --lib \
	  --no-default-features --features bundled,capi --crate-type staticlib \
	  --target x86_64-unknown-linux-gnu --target-dir target/sanitized
	PGWAKE_ASAN_ARCHIVE=$(CURDIR)/$(SANITIZED_LIB) $(CARGO) test $(SYSTEM_LIBPQ) --test it all_is_sanitized

bench: peers
	$(CARGO) bench --bench scenarios $(SYSTEM_LIBPQ)
	$(CARGO) bench --bench side_by_side $(SYSTEM_LIBPQ) -- target/peers

setup:
	@./setup.sh

setup-demo:
	@./setup.sh --demo

setup-deb:
	@./setup.sh --deb

setup-test:
	@./setup.sh --test
