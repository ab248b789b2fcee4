//! The service manager that started us, if one did: it is told when we are ready and when we end, as
//! sd_notify(3) says, through the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the socket is.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells it, if there is one. It waits for that, but what we do goes on in any case.
pub(crate) fn tell(state: &str) {
    if let Some(name) = std::env::var_os(VARIABLE)
        && let Err(error) = send(&name, state)
    {
        log::warn!("the service manager was not told {state} through {}: {error}", name.display());
    }
}

/// `@` begins the name of an abstract socket.
fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}
