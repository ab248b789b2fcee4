//! Calls of libpq that end in time and take in little, whatever the server sends.
#![allow(unsafe_code)]

use super::connection::{Connection, Polling};
use super::text::text;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::sys::{self, BoundedRead, Writes};

/// How much a connection that is being made takes in at a time. libpq answers whatever a server asks for, and
/// waits within the call for room to do so: what asks must be too little to fill that with answers.
const CONNECT_BYTES_MAX: usize = 512;

/// Some calls of libpq.
type Call<'a> = dyn FnMut(&mut Connection) -> Result<()> + 'a;

impl Connection {
    /// As [`consume_input`](Self::consume_input), but takes in 17 KB at most: once libpq has a message's
    /// length, it reads on for as long as anything comes (`pqReadData`, fe-misc.c), and believes any length.
    /// With output that libpq could not send so far, some of that is sent, too. But where TLS may have to
    /// write in order to read on, that could take the little room from it: such a read is only counted.
    ///
    /// Gives the number of bytes, and whether nothing is left to be sent.
    #[cold]
    pub(crate) fn consume_bounded(&mut self, has_output: bool) -> Result<(usize, bool)> {
        let mut is_flushed = true;
        let mut consume = |connection: &mut Self| {
            connection.consume_input()?;
            is_flushed = !has_output || connection.flush_into_room()?;
            Ok(())
        };
        let writes = if has_output { Writes::Queue } else { Writes::Handshake };
        let bytes = self.bounded(BoundedRead::BYTES_MAX, writes, &mut consume)?;
        Ok((bytes, is_flushed))
    }

    #[inline(never)]
    fn bytes_received(&self) -> u64 {
        self.socket().and_then(|socket| sys::tcp_bytes_received(socket).ok()).unwrap_or(0)
    }

    /// As [`poll_connect`](Self::poll_connect), and bounded more closely. Gives the number of bytes, too.
    #[cold]
    pub(crate) fn poll_connect_bounded(&mut self) -> Result<(Polling, usize)> {
        let mut polling = Polling::Failed;
        let bytes = self.bounded(CONNECT_BYTES_MAX, Writes::Handshake, &mut |connection| {
            polling = connection.poll_connect();
            Ok(())
        })?;
        Ok((polling, bytes))
    }

    #[inline(never)]
    fn bounded(&mut self, bytes_max: usize, writes: Writes, call: &mut Call<'_>) -> Result<usize> {
        let may_stand_in = writes == Writes::Handshake || !self.may_renegotiate;
        let socket = self.socket().filter(|_| may_stand_in);
        // At the end of the stream nothing more can come. Without a descriptor for it, nothing is bounded.
        let begin = |socket| BoundedRead::begin(socket, bytes_max, writes).ok().flatten();
        let Some(bounded) = socket.and_then(begin) else {
            let before = self.bytes_received();
            call(self)?;
            return Ok(self.bytes_received().saturating_sub(before) as usize);
        };
        let called = call(self);
        let bytes = bounded.end().map_err(|error| {
            let lost = Error { kind: ErrorKind::Connection, ..Error::from(error) };
            lost.with_sqlstate(Some(SqlState::CONNECTION_LOST))
        });
        called.and(bytes)
    }

    /// As [`flush`](Self::flush), for output that is stuck: without room that would read, and unbounded, for
    /// the server may be waiting for it (`pqSendSome`, fe-misc.c).
    #[cold]
    #[inline(never)]
    pub(crate) fn flush_into_room(&mut self) -> Result<bool> {
        Ok(self.socket().is_none_or(sys::has_room) && self.flush()?)
    }

    pub(super) fn is_tls_before_1_3(&self) -> bool {
        // SAFETY: the connection is alive; the value is NULL or a C string, and read before anything else.
        let version = unsafe { text(pq_sys::PQsslAttribute(self.raw.as_ptr(), c"protocol".as_ptr())) };
        matches!(version.as_str(), "TLSv1" | "TLSv1.1" | "TLSv1.2")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pq::Conninfo;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_read_is_bounded_although_the_server_takes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            client.read_exact(&mut length).unwrap();
            client.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4]).unwrap();
            client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
            // What cannot be sent is stuck by then.
            client.read_exact(&mut [0]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
            // A message of 1.5 GB, as fast as the machine can, until the client hangs up.
            client.write_all(&[b'A', 0x59, 0x68, 0x2f, 0]).unwrap();
            while client.write_all(&[0; 1 << 20]).is_ok() {}
        });
        let conninfo =
            format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=disable gssencmode=disable");
        let mut connection = Connection::connect(&Conninfo::parse(&conninfo).unwrap()).unwrap();
        connection.set_nonblocking().unwrap();
        connection.send_query(&"-".repeat(32 << 20)).unwrap();
        while connection.socket().is_some_and(sys::has_room) {
            assert!(!connection.consume_bounded(true).unwrap().1);
        }
        for _ in 0..200 {
            connection.wait_ready(false, std::time::Duration::from_secs(20)).unwrap();
            let (bytes, is_flushed) = connection.consume_bounded(true).unwrap();
            assert!(bytes <= 17 << 10 && !is_flushed, "{bytes}");
            assert!(!connection.flush_into_room().unwrap());
        }
        drop(connection);
        server.join().unwrap();
    }
}
