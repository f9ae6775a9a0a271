//! Connections to a port of a pod, as `kubectl port-forward` makes them: a websocket whose binary messages begin with the
//! number of a channel, 0 for the bytes and 1 for why there are none. Pods here are no more than objects: what is
//! reached is this machine's own loopback, where the agents of a node listen. Called by `serve`.

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use hyper::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::status::Status;

/// The framing that is spoken.
const PROTOCOL: &str = "v4.channel.k8s.io";
const BYTES: u8 = 0;
const ERROR: u8 = 1;
/// What is read at a time.
const CHUNK: usize = 16 << 10;

/// Headers of the answer, which switches protocols.
pub(super) type Switch = [(HeaderName, HeaderValue); 4];

/// Answers the handshake; the connection is made once the answer is sent.
///
/// # Errors
/// 400 when the request asks for no websocket of this framing, or for other than one port.
pub(super) fn open(request: &mut Request<Incoming>) -> Result<Switch, Status> {
    let switch = handshake(request.headers()).ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let port = request.uri().query().and_then(port);
    let port = port.ok_or_else(|| Status::bad_request("ports: one port of a pod can be asked for at a time"))?;
    tokio::spawn(carry(hyper::upgrade::on(request), port));
    Ok(switch)
}

fn handshake(headers: &HeaderMap) -> Option<Switch> {
    let mut offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split(',');
    offered.any(|one| one.trim() == PROTOCOL).then_some(())?;
    let accept = derive_accept_key(headers.get(SEC_WEBSOCKET_KEY)?.as_bytes());
    Some([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL)),
        (SEC_WEBSOCKET_ACCEPT, HeaderValue::try_from(accept).ok()?),
    ])
}

fn port(query: &str) -> Option<u16> {
    query.split('&').find_map(|pair| pair.strip_prefix("ports="))?.parse().ok()
}

/// A client that goes away in the middle is no failure of the server's.
async fn carry(upgrade: OnUpgrade, port: u16) {
    if let Ok(upgraded) = upgrade.await {
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let _gone = forward(socket, port).await;
    }
}

async fn forward(mut socket: WebSocketStream<TokioIo<Upgraded>>, port: u16) -> Result<()> {
    for channel in [BYTES, ERROR] {
        socket.send(message(channel, &port.to_le_bytes())).await?;
    }
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => both_ways(&mut socket, stream).await?,
        Err(error) => {
            let why = format!("error forwarding port {port} to pod: {error}");
            socket.send(message(ERROR, why.as_bytes())).await?;
        }
    }
    socket.close(None).await.context("closing")
}

async fn both_ways(socket: &mut WebSocketStream<TokioIo<Upgraded>>, mut stream: TcpStream) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        tokio::select! {
            asked = socket.next() => match asked.transpose()? {
                Some(Message::Binary(bytes)) => {
                    if let [BYTES, rest @ ..] = &*bytes {
                        stream.write_all(rest).await?;
                    }
                }
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
            read = stream.read(&mut chunk) => match read? {
                0 => return Ok(()),
                count => socket.send(message(BYTES, &chunk[..count])).await?,
            },
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}
