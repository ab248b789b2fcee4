//! Compiles the bare C loop into the command, for `pgwake bench` to run beside pgwake on the same libpq.

fn main() {
    println!("cargo::rerun-if-changed=benches/c_libpq_epoll.c");
    #[cfg(feature = "command")]
    // Optimised in a debug build, too: it is a yardstick.
    cc::Build::new()
        .file("benches/c_libpq_epoll.c")
        .define("WITHIN_PGWAKE", None)
        .opt_level(2)
        .compile("c_loop");
}
