//! Origins in this process: a thread for each connection, and as many bytes for a request as its path says. For counting
//! and for training, where the time that an origin takes does not matter. Used by `cost` and `training`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::mesh;

/// Bytes of body where the path says nothing else.
pub const BODY: usize = 1024;
/// The last part of a path that fails, but at each third request of a connection.
pub const FLAKY: &str = "flaky";
const SUCCEEDS_EACH: u32 = 3;
/// Ports that are tried until one is free at the addresses of both versions.
const ATTEMPTS: usize = 20;

/// Starts one for each version, and says on which port. They end with the process.
///
/// # Errors
/// When no port is free at both addresses.
pub fn start() -> Result<u16> {
    serve_with(serve)
}

/// The same for clients that speak TLS. Nobody is to check who they are.
///
/// # Errors
/// When no port is free at both addresses, or no certificate can be made.
pub fn start_tls() -> Result<u16> {
    let own = rcgen::generate_simple_self_signed(["origin".to_owned()]).context("a certificate")?;
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key)?);
    serve_with(move |stream, version| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).map_err(std::io::Error::other)?;
        serve(rustls::StreamOwned::new(connection, stream), version)
    })
}

fn serve_with(serve: impl Fn(TcpStream, &str) -> std::io::Result<()> + Clone + Send + 'static) -> Result<u16> {
    let listeners = (0..ATTEMPTS).find_map(|_| {
        let first = TcpListener::bind(SocketAddr::from((mesh::VERSIONS[0], 0))).ok()?;
        let port = first.local_addr().ok()?.port();
        Some((port, [first, TcpListener::bind(SocketAddr::from((mesh::VERSIONS[1], port))).ok()?]))
    });
    let (port, listeners) = listeners.context("no port is free at both addresses")?;
    for (version, listener) in ["v1", "v2"].into_iter().zip(listeners) {
        let serve = serve.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                // A connection that breaks is the other side's to report.
                std::thread::spawn(move || drop(stream.set_nodelay(true).and_then(|()| serve(stream, version))));
            }
        });
    }
    Ok(port)
}

fn serve(stream: impl Read + Write, version: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    let mut asked: u32 = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let (head_only, what) = (line.starts_with("HEAD "), path.rsplit('/').next().unwrap_or_default());
        let length = what.strip_suffix('k').and_then(|n| n.parse::<usize>().ok()).map_or(BODY, |kib| kib << 10);
        let flaky = what == FLAKY;
        skip_request(&mut reader, &mut line, &mut body)?;
        asked = asked.wrapping_add(1);
        let status = if flaky && !asked.is_multiple_of(SUCCEEDS_EACH) { "503 Service Unavailable" } else { "200 OK" };
        let mut answer =
            format!("HTTP/1.1 {status}\r\nserver: origin\r\nx-version: {version}\r\ncontent-length: {length}\r\n\r\n")
                .into_bytes();
        if !head_only {
            answer.resize(answer.len() + length, b'x');
        }
        reader.get_mut().write_all(&answer)?;
    }
}

/// Reads the rest of a request: headers, and a body of a length or in chunks.
fn skip_request(reader: &mut impl BufRead, line: &mut String, body: &mut Vec<u8>) -> std::io::Result<()> {
    let (mut length, mut chunked) = (0, false);
    loop {
        line.clear();
        if reader.read_line(line)? == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        chunked |= name.eq_ignore_ascii_case("transfer-encoding");
    }
    let mut take = |reader: &mut dyn BufRead, bytes: usize| {
        body.resize(bytes, 0);
        reader.read_exact(body)
    };
    if !chunked {
        return take(reader, length);
    }
    loop {
        line.clear();
        reader.read_line(line)?;
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        take(reader, size + 2)?;
        if size == 0 {
            return Ok(());
        }
    }
}
