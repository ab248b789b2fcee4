//! Calls of libpq that end in time and take in little, whatever the server sends.
#![allow(unsafe_code)]

use super::connection::{Connection, Polling};
use super::text;
use crate::error::{Error, ErrorKind, Result, SqlState};
use crate::sys::{self, BoundedRead, Writes};

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
        let consume = |connection: &mut Self| {
            connection.consume_input()?;
            is_flushed = !has_output || connection.flush_into_room()?;
            Ok(())
        };
        let bytes = match has_output {
            true if self.may_renegotiate => self.counted(consume),
            true => self.bounded(Writes::Queue, consume),
            false => self.bounded(Writes::Handshake, consume),
        }?;
        Ok((bytes, is_flushed))
    }

    fn counted(&mut self, call: impl FnOnce(&mut Self) -> Result<()>) -> Result<usize> {
        // Whoever closes the socket has an error to tell.
        let received = |connection: &Self| connection.socket().map_or(Ok(0), sys::tcp_bytes_received);
        let before = received(self)?;
        call(self)?;
        Ok(received(self)?.saturating_sub(before) as usize)
    }

    /// As [`poll_connect`](Self::poll_connect), and as bounded. Gives the number of bytes, too.
    #[cold]
    pub(crate) fn poll_connect_bounded(&mut self) -> Result<(Polling, usize)> {
        let mut polling = Polling::Failed;
        let bytes = self.bounded(Writes::Handshake, |connection| {
            polling = connection.poll_connect();
            Ok(())
        })?;
        Ok((polling, bytes))
    }

    fn bounded(&mut self, writes: Writes, call: impl FnOnce(&mut Self) -> Result<()>) -> Result<usize> {
        // At the end of the stream nothing more can come. Without a descriptor for it, nothing is bounded.
        let bounded = self.socket().and_then(|socket| BoundedRead::begin(socket, writes).ok().flatten());
        let Some(bounded) = bounded else { return call(self).map(|()| 0) };
        let called = call(self);
        let bytes = bounded.end().map_err(|error| {
            Error::new(ErrorKind::Connection, error.to_string())
                .with_sqlstate(Some(SqlState::CONNECTION_LOST))
        });
        called.and(bytes)
    }

    /// As [`flush`](Self::flush), for output that is stuck: without room that would read, and unbounded, for
    /// the server may be waiting for it (`pqSendSome`, fe-misc.c).
    #[cold]
    pub(crate) fn flush_into_room(&mut self) -> Result<bool> {
        Ok(self.socket().map_or(Ok(true), sys::has_room)? && self.flush()?)
    }

    pub(super) fn is_tls_before_1_3(&self) -> bool {
        // SAFETY: the connection is alive; the value is NULL or a C string, and read before anything else.
        let version = unsafe { text(pq_sys::PQsslAttribute(self.raw.as_ptr(), c"protocol".as_ptr())) };
        version.starts_with("TLSv1") && version != "TLSv1.3"
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
        while connection.socket().is_some_and(|socket| sys::has_room(socket).unwrap()) {
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
