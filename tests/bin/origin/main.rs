//! `weir-origin`: the application inside a test pod, and the relay that stands for kube-proxy. Started by the harness.
//!
//! `serve --version V --pod P [--status=S] [--http PORT]… [--closing PORT]… [--tcp PORT]… [--tcp-first PORT]…`
//! - http: answers `V P`, to `/echo` with the request that it got, echoes the body of a POST (chunked when asked by
//!   `x-reply: chunked`, with a trailer by `x-reply: trailers`), sleeps for `/sleep/MS`; `x-version`, `x-pod` and
//!   `x-peer` say who answered and whom it saw; `/served` is answered with how many other requests came. The status is
//!   that of `/status/S`, else S, else 200.
//! - closing: see `closing`.
//! - tcp: after the client's first bytes a line `V P`, then an echo of everything, half-close included.
//! - tcp-first: the line comes before the client has said anything.
//!
//! `relay LISTEN TARGET…`: each connection to the next target in turn.

mod closing;

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use closing::Closing;
use weir_tests::wire::{self, Head, Otherwise};

/// A thread of the origin needs little; hundreds of connections at once are normal.
const STACK: usize = 128 * 1024;

struct Who {
    version: String,
    pod: String,
    status: u16,
    served: AtomicU64,
    closing: Closing,
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
    let (mut version, mut pod, mut status) = (String::new(), String::new(), 200);
    let mut listeners = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (key, value) = match argument.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (argument, arguments.next().unwrap_or_default()),
        };
        match key.as_str() {
            "--version" => version = value,
            "--pod" => pod = value,
            "--status" => status = value.parse().map_err(io::Error::other)?,
            _ => listeners.push((key, value)),
        }
    }
    let who = Arc::new(Who { version, pod, status, served: AtomicU64::new(0), closing: Closing::default() });
    let mut threads = Vec::new();
    for (kind, port) in listeners {
        let talk: fn(TcpStream, &Who) -> io::Result<()> = match kind.as_str() {
            "--http" => http,
            "--closing" => |stream, who| who.closing.serve(&stream),
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
        if path != "/served" {
            who.served.fetch_add(1, Ordering::Relaxed);
        }
        let status = path.strip_prefix("/status/").and_then(|s| s.parse().ok()).unwrap_or(who.status);
        let answer = match method {
            "POST" => body,
            _ if path == "/served" => who.served.load(Ordering::Relaxed).to_string().into_bytes(),
            _ if path.starts_with("/echo") => echoed(&head),
            _ => format!("{} {}\n", who.version, who.pod).into_bytes(),
        };
        let mut reply = format!(
            "HTTP/1.1 {status} S\r\nx-version: {}\r\nx-pod: {}\r\nx-peer: {peer_address}\r\nx-path: {path}\r\n",
            who.version, who.pod
        )
        .into_bytes();
        if head.closes() {
            reply.extend_from_slice(b"connection: close\r\n");
        }
        append(&mut reply, &answer, method, head.get("x-reply"))?;
        out.write_all(&reply)?;
        if head.closes() {
            break;
        }
    }
    Ok(())
}

/// The rest of a reply: its framing and its body, of which a HEAD gets none.
fn append(reply: &mut Vec<u8>, answer: &[u8], method: &str, how: Option<&str>) -> io::Result<()> {
    if !matches!(how, Some("chunked" | "trailers")) {
        write!(reply, "content-length: {}\r\n\r\n", answer.len())?;
        if method != "HEAD" {
            reply.extend_from_slice(answer);
        }
        return Ok(());
    }
    reply.extend_from_slice(b"transfer-encoding: chunked\r\n");
    if how == Some("trailers") {
        reply.extend_from_slice(b"trailer: x-bytes\r\n");
    }
    reply.extend_from_slice(b"\r\n");
    if method != "HEAD" {
        wire::write_chunked(reply, answer)?;
        if how == Some("trailers") {
            reply.truncate(reply.len() - 2);
            write!(reply, "x-bytes: {}\r\n\r\n", answer.len())?;
        }
    }
    Ok(())
}

/// A request as it came: its first line, then its headers.
fn echoed(head: &Head) -> Vec<u8> {
    let headers = head.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
    format!("{}\n{}", head.first, headers.collect::<String>()).into_bytes()
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
