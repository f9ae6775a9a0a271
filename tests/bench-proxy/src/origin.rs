//! Origins in this process: 1 KiB for every request, a thread for each connection. For counting, where the time that an
//! origin takes does not matter. Used by `cost`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

use crate::mesh;

/// Bytes of body.
pub const BODY: usize = 1024;
/// Ports that are tried until one is free at the addresses of both versions.
const ATTEMPTS: usize = 20;

/// Starts one for each version, and says on which port. They end with the process.
///
/// # Errors
/// When no port is free at both addresses.
pub fn start() -> Result<u16> {
    let listeners = (0..ATTEMPTS).find_map(|_| {
        let first = TcpListener::bind(SocketAddr::from((mesh::VERSIONS[0], 0))).ok()?;
        let port = first.local_addr().ok()?.port();
        Some((port, [first, TcpListener::bind(SocketAddr::from((mesh::VERSIONS[1], port))).ok()?]))
    });
    let (port, listeners) = listeners.context("no port is free at both addresses")?;
    for (version, listener) in ["v1", "v2"].into_iter().zip(listeners) {
        let head =
            format!("HTTP/1.1 200 OK\r\nserver: origin\r\nx-version: {version}\r\ncontent-length: {BODY}\r\n\r\n");
        let answer = [head.into_bytes(), vec![b'x'; BODY]].concat();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = answer.clone();
                // A connection that breaks is the other side's to report.
                std::thread::spawn(move || drop(serve(stream, &answer)));
            }
        });
    }
    Ok(port)
}

/// The requests of our load come in one piece, and have no bodies.
fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..])?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            stream.write_all(answer)?;
            filled = 0;
        }
    }
}
