//! `pgwake version`: what is in this program, for a bug report.

use super::Failure;
use std::io::Write;

pub(crate) fn run() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let bundled = cfg!(feature = "bundled");
    writeln!(out, "pgwake   {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(
        out,
        "libpq    {} ({})",
        pgwake::pq::version(),
        if bundled { "bundled" } else { "the system's" }
    )?;
    writeln!(out, "TLS      {}", pgwake::pq::tls_version().unwrap_or_else(|| "unknown".into()))?;
    writeln!(out, "features {}", if bundled { "bundled json schedules" } else { "json schedules" })?;
    Ok(())
}
