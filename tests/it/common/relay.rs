//! One who stands between a client and the server and understands what the server says, as a pooler does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

/// What becomes of a message of the server's: its type, and its content, which may be changed; `false` for
/// one that is not passed on (manual, "Message Formats").
pub(crate) type Filter = fn(u8, &mut [u8]) -> bool;

/// Passes on what is said without TLS. Its port.
pub(crate) fn relay(port: u16, filter: Filter) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own_port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let copied = std::io::copy(&mut from_client, &mut to_server);
                to_server.shutdown(Shutdown::Both).and(copied)
            });
            std::thread::spawn(move || {
                let passed = pass_on(server, &mut client, filter);
                client.shutdown(Shutdown::Both).and(passed)
            });
        }
    });
    own_port
}

fn pass_on(mut server: TcpStream, client: &mut TcpStream, filter: Filter) -> std::io::Result<()> {
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        let mut content = vec![0; length];
        server.read_exact(&mut content)?;
        if filter(head[0], &mut content) {
            client.write_all(&[&head[..], &content].concat())?;
        }
    }
}

/// Passes on everything but notifications, as a pooler in transaction mode does. Its port.
pub(crate) fn swallower(port: u16) -> u16 {
    relay(port, |kind, _| kind != b'A')
}
