//! Names to addresses off the loop: `getaddrinfo` waits for name servers, so a short-lived thread asks it and
//! wakes the loop.

use crate::event::SessionId;
use crate::reactor::Nudge;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What the name service said about each name: addresses, or why there are none.
pub(crate) type Addresses = HashMap<String, Result<Vec<IpAddr>, String>>;

/// Asks on behalf of one session.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    session: SessionId,
    answers: Sender<(SessionId, Addresses)>,
    nudge: Nudge,
}

impl Resolver {
    /// Looks the names up. The loop gets the answer, however long it takes.
    pub(super) fn look_up(&self, names: Vec<String>) -> io::Result<()> {
        let asker = self.clone();
        std::thread::Builder::new().name("pgwake-names".into()).spawn(move || {
            let addresses = names.into_iter().map(|name| {
                let found = (name.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string());
                (name, found.map(|found| found.map(|socket| socket.ip()).collect()))
            });
            // Nobody is there to hear it when the loop is gone.
            let _ = asker.answers.send((asker.session, addresses.collect()));
            let _ = asker.nudge.nudge();
        })?;
        Ok(())
    }
}

/// The loop's end: makes resolvers, takes their answers.
#[derive(Debug)]
pub(crate) struct Lookups {
    sender: Sender<(SessionId, Addresses)>,
    receiver: Receiver<(SessionId, Addresses)>,
    nudge: Nudge,
}

impl Lookups {
    pub(crate) fn new(nudge: Nudge) -> Self {
        let (sender, receiver) = channel();
        Lookups { sender, receiver, nudge }
    }

    pub(crate) fn resolver(&self, session: SessionId) -> Resolver {
        Resolver { session, answers: self.sender.clone(), nudge: self.nudge.clone() }
    }

    /// The next answer, if one has come.
    pub(crate) fn next(&self) -> Option<(SessionId, Addresses)> {
        self.receiver.try_recv().ok()
    }
}
