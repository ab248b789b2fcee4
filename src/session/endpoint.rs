//! Where a session may connect to, in order: the hosts of its conninfo, each with the addresses that its name
//! has.
//!
//! libpq would look the names up within its own calls, and wait for the name server there. With `hostaddr`
//! given it does not, and still checks certificates and finds passwords by the name (manual, "Parameter Key
//! Words").

use crate::pq::Conninfo;
use std::net::IpAddr;

/// One endpoint, as libpq's lists `host`, `hostaddr` and `port` have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name, an address, a socket's directory, or nothing for libpq's default.
    host: String,
    /// Empty: libpq goes by `host`.
    address: String,
    port: String,
}

impl Endpoint {
    /// The name to look up before connecting, if there is one.
    fn name(&self) -> Option<&str> {
        let is_socket = self.host.is_empty() || self.host.starts_with(['/', '@']);
        // Behind a percent sign stands the interface of a link-local address.
        let is_address = self.host.split('%').next().is_some_and(|host| host.parse::<IpAddr>().is_ok());
        (self.address.is_empty() && !is_socket && !is_address).then_some(&self.host)
    }

    /// Whether libpq speaks of this endpoint when it says that it is at `address` and `port`.
    fn is_at(&self, address: &str, port: &str) -> bool {
        let own = if self.address.is_empty() { &self.host } else { &self.address };
        // An address can be written in several ways.
        let is_same = match (own.parse::<IpAddr>(), address.parse::<IpAddr>()) {
            (Ok(own), Ok(address)) => own == address,
            _ => own == address,
        };
        is_same && (self.port == port || self.port.is_empty())
    }

    /// Whether nobody between us and the server can read along: a unix socket, or the loopback interface.
    fn is_local(&self) -> bool {
        let address = if self.address.is_empty() { &self.host } else { &self.address };
        address.parse::<IpAddr>().map_or(self.name().is_none(), |address| address.is_loopback())
    }
}

/// The endpoints to try, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Route(Vec<Endpoint>);

impl Route {
    /// The endpoints of a conninfo that has its defaults filled in. `None` when its lists do not match: libpq
    /// words that best.
    pub(super) fn of(conninfo: &Conninfo) -> Option<Self> {
        let list = |keyword| conninfo.get(keyword).unwrap_or_default().split(',').collect::<Vec<_>>();
        let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let count = hosts.len().max(addresses.len());
        let pick = |list: &[&str], i: usize| -> Option<String> {
            match list {
                [] | [""] => Some(String::new()),
                list => list.get(i).map(|entry| entry.trim().to_string()),
            }
        };
        let endpoint = |i| {
            let port = if ports.len() == 1 { ports[0].to_string() } else { pick(&ports, i)? };
            Some(Endpoint { host: pick(&hosts, i)?, address: pick(&addresses, i)?, port })
        };
        (0..count).map(endpoint).collect::<Option<Vec<_>>>().map(Route)
    }

    /// The names that must be looked up first, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().filter_map(|endpoint| endpoint.name().map(String::from)).collect()
    }

    /// Puts each name's addresses where it stands. A name without an answer is left out.
    pub(super) fn resolve(&mut self, answer: impl Fn(&str) -> Vec<IpAddr>) {
        let endpoints = std::mem::take(&mut self.0).into_iter().flat_map(|endpoint| match endpoint.name() {
            Some(name) => answer(name)
                .into_iter()
                .map(|address| Endpoint { address: address.to_string(), ..endpoint.clone() })
                .collect(),
            None => vec![endpoint],
        });
        self.0 = endpoints.collect();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_local(&self) -> bool {
        self.0.iter().all(Endpoint::is_local)
    }

    /// Moves the endpoint at `address` and `port` behind all others.
    pub(super) fn put_last(&mut self, address: &str, port: &str) {
        let (silent, others) =
            std::mem::take(&mut self.0).into_iter().partition(|p: &Endpoint| p.is_at(address, port));
        self.0 = others;
        self.0.extend::<Vec<Endpoint>>(silent);
    }

    /// The endpoint at `address` and `port` alone.
    pub(super) fn only(&self, address: &str, port: &str) -> Self {
        Route(self.0.iter().filter(|endpoint| endpoint.is_at(address, port)).cloned().collect())
    }

    /// Writes the endpoints into a conninfo.
    pub(super) fn write_into(&self, conninfo: &mut Conninfo) {
        let list = |part: fn(&Endpoint) -> &str| self.0.iter().map(part).collect::<Vec<_>>().join(",");
        conninfo.set("host", &list(|endpoint| &endpoint.host));
        conninfo.set("hostaddr", &list(|endpoint| &endpoint.address));
        conninfo.set("port", &list(|endpoint| &endpoint.port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(conninfo: &str) -> Route {
        Route::of(&Conninfo::parse(conninfo).unwrap()).unwrap()
    }

    #[test]
    fn only_names_are_looked_up_and_each_becomes_its_addresses() {
        let mut route = route("host=/tmp,db.example,10.0.0.1,::1,gone.example port=1,2,3,4,5");
        assert_eq!(route.names(), ["db.example", "gone.example"]);
        route.resolve(|name| match name {
            "db.example" => vec!["10.1.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            _ => Vec::new(),
        });
        let mut conninfo = Conninfo::parse("dbname=app").unwrap();
        route.write_into(&mut conninfo);
        assert_eq!(conninfo.get("host"), Some("/tmp,db.example,db.example,10.0.0.1,::1"));
        assert_eq!(conninfo.get("hostaddr"), Some(",10.1.1.1,fd00::1,,"));
        assert_eq!(conninfo.get("port"), Some("1,2,2,3,4"));
    }

    #[test]
    fn a_given_address_is_not_looked_up() {
        assert!(route("host=db.example hostaddr=10.0.0.1 port=5432").names().is_empty());
        assert!(route("hostaddr=10.0.0.1,10.0.0.2").names().is_empty());
        assert!(route("host=fe80::1%eth0,@socket,/tmp").names().is_empty());
        assert_eq!(Route::of(&Conninfo::parse("host=a,b,c port=1,2").unwrap()), None);
    }

    #[test]
    fn a_silent_endpoint_goes_to_the_end() {
        let mut silent_first = route("host=10.0.0.1,10.0.0.2,10.0.0.3 port=7");
        silent_first.put_last("10.0.0.1", "7");
        assert_eq!(silent_first, route("host=10.0.0.2,10.0.0.3,10.0.0.1 port=7"));
    }

    #[test]
    fn local_is_what_nobody_can_listen_in_to() {
        for local in ["host=/tmp", "host=127.0.0.1", "host=::1", "host=db hostaddr=127.0.0.2"] {
            assert!(route(local).is_local(), "{local}");
        }
        for remote in ["host=10.0.0.1", "host=/tmp,10.0.0.1", "hostaddr=192.0.2.1", "host=localhost.example"]
        {
            assert!(!route(remote).is_local(), "{remote}");
        }
    }
}
