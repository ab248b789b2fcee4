# make          builds target/release/pgwake
# make demo     shows it at work on a throw-away PostgreSQL of its own
# make test     everything that must hold, as CI runs it
# make sanitize the same tests under AddressSanitizer
# make bench    pgwake beside a bare C loop over the same libpq
# Each installs what it needs and is missing, or names it.

CARGO = PATH="$$PATH:$$HOME/.cargo/bin" cargo
# The command and the library with the system's libpq instead of the bundled one.
SYSTEM_LIBPQ = --no-default-features --features command

.PHONY: all demo test check sanitize bench peers setup setup-test

all: setup
	$(CARGO) build --release

demo: setup
	@$(CARGO) build --release
	@target/release/pgwake demo

test: setup-test check peers
	PGWAKE_PEERS=target/peers $(CARGO) test
	PGWAKE_PEERS=target/peers $(CARGO) test $(SYSTEM_LIBPQ)

check: setup-test
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets $(SYSTEM_LIBPQ) -- -D warnings
	$(CARGO) clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps

# The programs of a side-by-side measurement, on the system's libpq: pgwake, and the bare C loop.
peers: setup-test
	@mkdir -p target/peers
	$(CARGO) build --profile bench --bench peer $(SYSTEM_LIBPQ) --message-format=json \
	  | sed -n 's/.*"name":"peer".*"executable":"\([^"]*\)".*/\1/p' | xargs -I{} cp {} target/peers/pgwake
	cc -O2 -Wall -Wextra -Werror -o target/peers/c-libpq-epoll benches/c_libpq_epoll.c \
	  $$(pkg-config --cflags --libs libpq)

# The tests under AddressSanitizer, which also finds leaks. Those that bound the memory are left out: it needs its own.
SANITIZED = RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test $(SYSTEM_LIBPQ) \
  --target x86_64-unknown-linux-gnu --target-dir target/sanitized --tests --no-fail-fast
sanitize: setup-test
	$(SANITIZED) -- --skip memory

bench: peers
	$(CARGO) bench --bench side_by_side $(SYSTEM_LIBPQ) -- target/peers

setup:
	@./setup.sh

setup-test:
	@./setup.sh --test
