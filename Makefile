# make          builds target/release/pgwake
# make demo     shows it at work on a throw-away PostgreSQL of its own
# make test     everything that must hold, as CI runs it
# make sanitize the same tests under AddressSanitizer
# make regress PGSRC=DIRECTORY   PostgreSQL's own regression files, from its sources, with the DDL triggers on
# make bench    pgwake beside a bare C loop over the same libpq
# make lib      the C library, in target/lib
# make install  command, C library, header, manual pages: PREFIX= (/usr/local), DESTDIR=; make uninstall takes them away
# Each installs what it needs and is missing, or names it.

CARGO = PATH="$$PATH:$$HOME/.cargo/bin" cargo
# The command and the library with the system's libpq instead of the bundled one.
SYSTEM_LIBPQ = --no-default-features --features command

# Only the C library's functions.
ONLY_LIB = --lib --release --no-default-features --crate-type staticlib
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Counts changes that a program built before would not survive.
SO = libpgwake.so.0
PREFIX = /usr/local
DEST = $(DESTDIR)$(PREFIX)

.PHONY: all demo test check regress sanitize sanitize-c bench peers lib lib-test install uninstall setup setup-test
.NOTPARALLEL:

all: setup
	$(CARGO) build --release

demo: setup
	@$(CARGO) build --release
	@target/release/pgwake demo

test: setup-test check peers
	$(MAKE) --no-print-directory install PREFIX=$(CURDIR)/target/installed
	PGWAKE_PEERS=target/peers PGWAKE_INSTALLED=$(CURDIR)/target/installed $(CARGO) test --features capi
	PGWAKE_PEERS=target/peers $(CARGO) test $(SYSTEM_LIBPQ)

check: setup-test
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features capi-test -- -D warnings
	$(CARGO) clippy --all-targets $(SYSTEM_LIBPQ) -- -D warnings
	$(CARGO) clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

# One object, in which only the functions of the header are visible; and the same as a shared library.
lib: setup
	$(CARGO) rustc $(ONLY_LIB) --features bundled,capi
	@mkdir -p target/lib
	ffi/pack.sh target/release/libpgwake.a ffi/include/pgwake.h target/lib/libpgwake.a
	cc -shared -o target/lib/$(SO) -Wl,-soname,$(SO) -Wl,--version-script=ffi/libpgwake.map -Wl,-z,nodelete,-z,now \
	  -Wl,--whole-archive target/lib/libpgwake.a -Wl,--no-whole-archive -lssl -lcrypto -lgcc_s -lm

# What is not shipped: on the system's libpq, and with a function that panics.
lib-test: setup-test
	@mkdir -p target/lib-test
	$(CARGO) rustc $(ONLY_LIB) --features capi-test
	ffi/pack.sh target/release/libpgwake.a ffi/include/pgwake.h target/lib-test/libpgwake.a pgwake_test_panic

install: all lib
	install -d $(DEST)/bin $(DEST)/lib/pkgconfig $(DEST)/include/pgwake $(DEST)/share/man/man1 $(DEST)/share/man/man3
	install target/release/pgwake $(DEST)/bin
	install -m 644 target/lib/libpgwake.a $(DEST)/lib
	install target/lib/$(SO) $(DEST)/lib
	ln -sf $(SO) $(DEST)/lib/libpgwake.so
	install -m 644 ffi/include/pgwake.h $(DEST)/include
	install -m 644 ffi/adapters/*.h $(DEST)/include/pgwake
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' ffi/pgwake.pc.in >$(DEST)/lib/pkgconfig/pgwake.pc
	install -m 644 ffi/man/pgwake.1 $(DEST)/share/man/man1
	install -m 644 ffi/man/pgwake.3 $(DEST)/share/man/man3

uninstall:
	rm -f $(DEST)/bin/pgwake $(DEST)/lib/libpgwake.a $(DEST)/lib/libpgwake.so $(DEST)/lib/$(SO) \
	  $(DEST)/lib/pkgconfig/pgwake.pc $(DEST)/include/pgwake.h \
	  $(DEST)/share/man/man1/pgwake.1 $(DEST)/share/man/man3/pgwake.3
	rm -rf $(DEST)/include/pgwake

# The programs of a side-by-side measurement, on the system's libpq: pgwake from Rust and from C, and the bare C loop.
peers: setup-test lib-test
	@mkdir -p target/peers
	$(CARGO) build --profile bench --bench peer $(SYSTEM_LIBPQ) --message-format=json-render-diagnostics \
	  >target/peer.json
	cp "$$(sed -n 's/.*"name":"peer".*"executable":"\([^"]*\)".*/\1/p' target/peer.json)" target/peers/pgwake
	cc -O2 -Wall -Wextra -Werror -o target/peers/c-libpq-epoll benches/c_libpq_epoll.c \
	  $$(pkg-config --cflags --libs libpq)
	cc -O2 -Wall -Wextra -Werror -Iffi/include -o target/peers/pgwake-c benches/peer.c target/lib-test/libpgwake.a \
	  $$(pkg-config --libs libpq) -lgcc_s -lm

regress: setup-test
	$(if $(PGSRC),PGWAKE_PGSRC=$(abspath $(PGSRC))) $(CARGO) test $(SYSTEM_LIBPQ) --test regress

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
	PGWAKE_ASAN_ARCHIVE=$(CURDIR)/$(SANITIZED_LIB) $(CARGO) test $(SYSTEM_LIBPQ) --test c_interface sanitized

bench: peers
	$(CARGO) bench --bench scenarios $(SYSTEM_LIBPQ)
	$(CARGO) bench --bench side_by_side $(SYSTEM_LIBPQ) -- target/peers

setup:
	@./setup.sh

setup-test:
	@./setup.sh --test
