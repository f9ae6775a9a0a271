//! `weir-origin`: the application inside a test pod, and the relay that stands for kube-proxy. Started by the harness.
//!
//! `serve --version V --pod P [--http PORT]… [--tcp PORT]… [--tcp-first PORT]…`
//! - http: answers `V P`, echoes the body of a POST (chunked when asked by `x-reply: chunked`), sleeps for
//!   `/sleep/MS`; `x-version`, `x-pod` and `x-peer` say who answered and whom it saw.
//! - tcp: after the client's first bytes a line `V P`, then an echo of everything, half-close included.
//! - tcp-first: the line comes before the client has said anything.
//!
//! `relay LISTEN TARGET…`: each connection to the next target in turn.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use weir_tests::wire::{self, Otherwise};

/// A thread of the origin needs little; hundreds of connections at once are normal.
const STACK: usize = 128 * 1024;

struct Who {
    version: String,
    pod: String,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("serve") => serve(arguments.collect()),
        Some("relay") => relay(&arguments.collect::<Vec<_>>()),
        _ => Err(io::Error::other("usage: weir-origin serve … | relay LISTEN TARGET…")),
    }
}

fn serve(arguments: Vec<String>) -> io::Result<()> {
    let (mut version, mut pod) = (String::new(), String::new());
    let mut listeners = Vec::new();
    let mut arguments = arguments.into_iter();
    while let (Some(key), Some(value)) = (arguments.next(), arguments.next()) {
        match key.as_str() {
            "--version" => version = value,
            "--pod" => pod = value,
            _ => listeners.push((key, value)),
        }
    }
    let who = Arc::new(Who { version, pod });
    let mut threads = Vec::new();
    for (kind, port) in listeners {
        let talk: fn(TcpStream, &Who) -> io::Result<()> = match kind.as_str() {
            "--http" => http,
            "--tcp" => tcp,
            "--tcp-first" => tcp_first,
            _ => return Err(io::Error::other(format!("unknown argument {kind}"))),
        };
        let port: u16 = port.parse().map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
        let who = Arc::clone(&who);
        threads.push(thread::spawn(move || accept(&listener, move |stream| talk(stream, &who))));
    }
    for thread in threads {
        let _endless = thread.join();
    }
    Ok(())
}

fn accept(listener: &TcpListener, talk: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let talk = talk.clone();
        // A peer that goes away ends its own thread, nothing else.
        let _out_of_threads = thread::Builder::new().stack_size(STACK).spawn(move || talk(stream));
    }
}

fn http(stream: TcpStream, who: &Who) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer_address = stream.peer_addr()?;
    let mut out = stream.try_clone()?;
    let mut peer = BufReader::new(stream);
    while let Some(head) = wire::read_head(&mut peer)? {
        let body = wire::read_body(&mut peer, &head, Otherwise::Empty)?;
        let mut parts = head.first.split(' ');
        let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let Some(ms) = path.strip_prefix("/sleep/").and_then(|ms| ms.parse().ok()) {
            thread::sleep(Duration::from_millis(ms));
        }
        let plain = format!("{} {}\n", who.version, who.pod);
        let answer: &[u8] = if method == "POST" { &body } else { plain.as_bytes() };
        let chunked = head.get("x-reply") == Some("chunked");
        let mut reply = format!(
            "HTTP/1.1 200 OK\r\nx-version: {}\r\nx-pod: {}\r\nx-peer: {peer_address}\r\nx-path: {path}\r\n",
            who.version, who.pod
        )
        .into_bytes();
        if head.closes() {
            reply.extend_from_slice(b"connection: close\r\n");
        }
        if chunked {
            reply.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            wire::write_chunked(&mut reply, answer)?;
        } else {
            write!(reply, "content-length: {}\r\n\r\n", answer.len())?;
            reply.extend_from_slice(answer);
        }
        out.write_all(&reply)?;
        if head.closes() {
            break;
        }
    }
    Ok(())
}

fn tcp(mut stream: TcpStream, who: &Who) -> io::Result<()> {
    let mut first = [0; 16 * 1024];
    let length = stream.read(&mut first)?;
    if length > 0 {
        writeln!(stream, "{} {}", who.version, who.pod)?;
        stream.write_all(&first[..length])?;
    }
    echo(&stream)
}

fn tcp_first(mut stream: TcpStream, who: &Who) -> io::Result<()> {
    writeln!(stream, "{} {}", who.version, who.pod)?;
    echo(&stream)
}

fn echo(stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut &*stream, &mut &*stream)?;
    stream.shutdown(Shutdown::Write)
}

fn relay(arguments: &[String]) -> io::Result<()> {
    let addresses: Result<Vec<SocketAddr>, _> = arguments.iter().map(|a| a.parse()).collect();
    let addresses = addresses.map_err(io::Error::other)?;
    let Some((listen, targets)) = addresses.split_first() else {
        return Err(io::Error::other("no address"));
    };
    if targets.is_empty() {
        return Err(io::Error::other("no target"));
    }
    let listener = TcpListener::bind(listen)?;
    for (stream, target) in listener.incoming().zip(targets.iter().cycle()) {
        let (Ok(client), target) = (stream, *target) else {
            continue;
        };
        let _out_of_threads = thread::Builder::new().stack_size(STACK).spawn(move || join(&client, target));
    }
    Ok(())
}

fn join(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let pump = |from: &TcpStream, to: &TcpStream| {
        let _ended = io::copy(&mut &*from, &mut &*to);
        let _gone = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server));
        pump(&server, client);
    });
    Ok(())
}
