//! How a handle reaches its server: a thread of this process, or a process of its own with a control port. The handle
//! in `mod.rs` opens one; the binary `weir-test-apiserver` is the other side of the second.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::certificates;
use super::command::{self, Command};
use super::options::Options;
use super::server::Server;

/// How long the control port may take for a command: a large population is made within it.
const COMMAND_TIME: Duration = Duration::from_mins(2);
/// The largest command that is read: a directory of manifests in one text.
const MAX_COMMAND: u64 = 64 << 20;

/// Where a server listens and whom its clients must trust, as the process says it on its first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) address: SocketAddr,
    /// The control port.
    pub(super) control: Option<SocketAddr>,
    /// The authority's certificate, PEM.
    pub(super) ca: Option<String>,
}

/// A server of this handle.
#[derive(Debug)]
pub(super) enum Door {
    Thread {
        server: Arc<Server>,
        thread: Option<JoinHandle<()>>,
    },
    /// The process ends when its standard input does, so also when we die.
    Process {
        control: SocketAddr,
        child: Child,
        _input: ChildStdin,
    },
}

impl Door {
    /// Starts a server on a thread.
    pub(super) fn thread(options: Options) -> Result<(Self, Started)> {
        let issued = options.tls.then(|| certificates::issue(options.address)).transpose()?;
        let (ca, acceptor) = issued.map(|i| (i.ca, i.acceptor)).unzip();
        let (server, thread) = Server::start(options, acceptor)?;
        let started = Started { address: server.address, control: None, ca };
        Ok((Self::Thread { server, thread: Some(thread) }, started))
    }

    /// Starts a server as a process.
    pub(super) fn process(options: &Options) -> Result<(Self, Started)> {
        let mut program = Program::new(crate::mesh::binary("weir-test-apiserver"));
        program.args(options.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().with_context(|| format!("starting {}", program.get_program().display()))?;
        let input = child.stdin.take().context("standard input is piped")?;
        let output = child.stdout.take().context("standard output is piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let started: Result<Started> = serde_json::from_str(&line).with_context(|| format!("the server said {line:?}"));
        match started.and_then(|s| Ok((s.control.context("it has a control port")?, s))) {
            Ok((control, started)) => Ok((Self::Process { control, child, _input: input }, started)),
            Err(e) => {
                let _ended = child.kill();
                let _status = child.wait();
                Err(e)
            }
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Thread { .. } => None,
            Self::Process { child, .. } => Some(child.id()),
        }
    }

    /// Has the server execute a command.
    pub(super) fn tell(&self, command: Command) -> Result<Value> {
        match self {
            Self::Thread { server, .. } => command::execute(server, command),
            Self::Process { control, .. } => ask(*control, &serde_json::to_string(&command)?),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        match self {
            Self::Thread { server, thread } => {
                let _ending_anyway = command::execute(server, Command::End);
                if let Some(thread) = thread.take() {
                    let _panicked = thread.join();
                }
            }
            Self::Process { child, .. } => {
                let _ended = child.kill();
                let _status = child.wait();
            }
        }
    }
}

/// Posts a command to a control port.
fn ask(control: SocketAddr, command: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(control).context("reaching the control port")?;
    stream.set_read_timeout(Some(COMMAND_TIME))?;
    write!(stream, "POST / HTTP/1.1\r\nHost: control\r\nContent-Length: {}\r\n\r\n{command}", command.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the control port's answer")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("the control port's answer has a body")?;
    let mut body: Value = serde_json::from_str(body).context("the control port's answer is JSON")?;
    match body["error"].as_str() {
        Some(error) => Err(anyhow!("{error}")),
        None => Ok(body["value"].take()),
    }
}

/// Runs a server with its control port until standard input ends. Says where on standard output, in one line.
///
/// # Errors
/// When an address is taken.
pub(super) fn serve(options: Options, control_port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, control_port)).context("binding the control port")?;
    let (door, mut started) = Door::thread(options)?;
    started.control = Some(listener.local_addr()?);
    writeln!(io::stdout(), "{}", serde_json::to_string(&started)?)?;
    let Door::Thread { server, .. } = &door else { return Ok(()) };
    let server = Arc::clone(server);
    thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = Arc::clone(&server);
            thread::spawn(move || {
                // Who breaks the connection gets no answer, and that is all.
                let _broken = converse(&server, &stream);
            });
        }
    })?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// One request: a command as JSON, any path. Answers 200 with its value, or 400 with an error.
fn converse(server: &Server, stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(COMMAND_TIME))?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        ensure!(reader.by_ref().take(MAX_COMMAND).read_line(&mut line)? > 0, "the request ended early");
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>()?;
        }
    }
    let mut body = String::new();
    reader.take(length.min(MAX_COMMAND)).read_to_string(&mut body)?;
    let done = serde_json::from_str::<Command>(&body)
        .map_err(anyhow::Error::from)
        .and_then(|command| command::execute(server, command));
    let (status, answer) = match done {
        Ok(value) => ("200 OK", json!({"value": value})),
        Err(e) => ("400 Bad Request", json!({"error": format!("{e:#}")})),
    };
    let answer = answer.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(())
}
