//! Writing to a connection that is gone raises no SIGPIPE, whatever its host does with that signal.
//!
//! It is the default's here, which ends the process, so no other test may be in this binary.

#[path = "it/common/mod.rs"]
mod common;

use common::{PATIENCE, Seen, Sql, fresh_channel, server, transports};
use pgwake::EventLoop;

/// How often a session writes into the void, over each transport.
const LOSSES: usize = 20;

#[test]
fn a_session_that_writes_into_the_void_raises_no_signal() {
    let mut sql = Sql::connect(&server().conninfo());
    // SAFETY: the default action is a valid one, and nobody else sets it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    for (transport, conninfo) in transports(server()) {
        let name = fresh_channel();
        let mut events = EventLoop::new().unwrap();
        let session = events.connect(&format!("{conninfo} application_name={name}")).unwrap();
        let kill = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'"
        );
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        let mut losses = 0;
        while losses < LOSSES {
            match events.next(Some(PATIENCE)).unwrap().map(Seen::of) {
                Some(Seen::Listening(_) | Seen::Gap { .. }) => {
                    sql.run(&kill);
                    while sql.value(&gone) != "0" {}
                    // Nobody reads this, and the session does not know yet.
                    (0..3).for_each(|_| events.notify(session, "void", "x".repeat(7999)).unwrap());
                }
                Some(Seen::Disconnected(_)) => losses += 1,
                Some(Seen::CommandFailed { .. } | Seen::Sent(_)) => {}
                other => panic!("{transport}: {other:?}"),
            }
        }
    }
}
