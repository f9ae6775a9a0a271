//! HTTP/1.0 and 1.1 on the wire: old clients, pipelining, HEAD, 100-continue, chunks with trailers, upgrades.

use anyhow::{Context, Result, ensure};
use weir_tests::require;
use weir_tests::require::Need;

use super::stage::{Stage, V1, http};

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl"), Need::Program("python3")];

fn stage() -> Result<Stage> {
    Stage::new(&http(&format!(
        "{{match: [{{uri: {{prefix: /teapot}}}}], directResponse: {{status: 418, body: {{string: short}}}}}}, {{{V1}}}"
    )))
}

#[test]
fn old_clients_heads_and_expectations() -> Result<()> {
    if !require("old_clients_heads_and_expectations", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let old = stage.curl("/echo", &["--http1.0"])?;
    ensure!(old.status == 200 && old.body.starts_with("GET /echo HTTP/1.1\n"), "{old:?}");
    let (head, get) = (stage.curl("/", &["--head"])?, stage.curl("/", &[])?);
    ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
    ensure!(head.header("content-length") == get.header("content-length"), "{head:?} {get:?}");
    let chunked = stage.curl("/", &["--head", "-H", "x-reply: chunked"])?;
    ensure!(chunked.status == 200 && chunked.body.is_empty(), "{chunked:?}");
    // curl asks before it sends more than a megabyte, and so does anybody who says so.
    let expected = stage.curl("/", &["-H", "Expect: 100-continue", "-d", "payload"])?;
    ensure!((expected.interim.as_slice(), &*expected.body) == (&[100][..], "payload"), "{expected:?}");
    // Whoever is refused need not send, and is told that the connection ends.
    let refused = stage.curl("/teapot", &["-H", "Expect: 100-continue", "-d", "payload"])?;
    ensure!((refused.status, refused.interim.is_empty()) == (418, true), "{refused:?}");
    ensure!(refused.header("connection") == Some("close"), "{refused:?}");
    // One connection for all of them.
    let url = format!("http://{}/", stage.scene.http.ipv4());
    let connects = stage.run(
        "client",
        "curl",
        &[
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{num_connects} ",
            "-H",
            "Host: service-b",
            &url,
            "-o",
            "/dev/null",
            &url,
            "-o",
            "/dev/null",
            &url,
        ],
    )?;
    ensure!(connects.trim() == "1 0 0", "{connects}");
    Ok(())
}

#[test]
fn what_comes_at_once_is_answered_in_turn() -> Result<()> {
    if !require("what_comes_at_once_is_answered_in_turn", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let said = stage.python(PIPELINE, &["10.96.0.2"])?;
    ensure!(said.trim() == "200 answers in turn", "{said}");
    Ok(())
}

const PIPELINE: &str = r#"
import http.client, socket, sys
s = socket.create_connection((sys.argv[1], 80), timeout=10)
COUNT = 200
requests = [b"%s /echo/%d HTTP/1.1\r\nHost: service-b\r\n%s\r\n" % (m, n, b) for n in range(COUNT)
            for m, b in [((b"GET", b"") if n % 3 else (b"HEAD", b"x: y\r\n"))]]
s.sendall(b"".join(requests))
for n in range(COUNT):
    answer = http.client.HTTPResponse(s, method="GET" if n % 3 else "HEAD")
    # One buffer for all answers: a response must not read into the next one.
    answer.fp = answer.fp if n == 0 else fp
    fp = answer.fp
    answer.begin()
    assert answer.status == 200, (n, answer.status)
    assert answer.headers["x-path"] == "/echo/%d" % n, (n, answer.headers["x-path"])
    body = b"" if n % 3 == 0 else fp.read(int(answer.headers["content-length"]))
    assert n % 3 == 0 or body.startswith(b"GET /echo/%d " % n), (n, body)
    answer.fp = None
print(COUNT, "answers in turn")
"#;

#[test]
fn chunks_and_trailers_pass_in_both_directions() -> Result<()> {
    if !require("chunks_and_trailers_pass_in_both_directions", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let said = stage.python(CHUNKS, &["10.96.0.2"])?;
    ensure!(said.trim() == "x-bytes: 11", "{said}");
    Ok(())
}

/// The trailers of a request are taken off its body, those of an answer reach who says that it takes them.
const CHUNKS: &str = r#"
import socket, sys
s = socket.create_connection((sys.argv[1], 80), timeout=10)
s.sendall(b"POST / HTTP/1.1\r\nHost: service-b\r\nTE: trailers\r\nConnection: te\r\nx-reply: trailers\r\n"
          b"Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-sum: 1\r\n\r\n")
fp = s.makefile("rb")
assert b" 200 " in fp.readline()
headers = {}
while (line := fp.readline().strip()):
    name, value = line.split(b":", 1)
    headers[name.lower()] = value.strip()
assert headers[b"transfer-encoding"] == b"chunked", headers
body = b""
while (size := int(fp.readline(), 16)):
    body += fp.read(size)
    assert fp.readline() == b"\r\n"
assert body == b"hello world", body
trailers = []
while (line := fp.readline().strip()):
    trailers.append(line.decode())
# The connection goes on where the answer has ended.
s.sendall(b"GET /next HTTP/1.1\r\nHost: service-b\r\n\r\n")
assert b" 200 " in fp.readline()
print(" ".join(trailers))
"#;

#[test]
fn an_upgrade_is_granted_by_the_pod_alone() -> Result<()> {
    if !require("an_upgrade_is_granted_by_the_pod_alone", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    // A pod that does not know the protocol answers as if it had not been asked, and the connection stays.
    let said = stage.curl("/echo", &["-H", "Connection: Upgrade", "-H", "Upgrade: chat/2"])?;
    ensure!(said.status == 200, "{said:?}");
    let seen = said.body.lines().find(|line| line.starts_with("upgrade: ")).context("the pod is asked")?;
    ensure!(seen == "upgrade: chat/2", "{said:?}");
    // Frames of HTTP/2 would be routed by nobody.
    let h2c = stage.curl(
        "/echo",
        &["-H", "Connection: Upgrade, HTTP2-Settings", "-H", "Upgrade: h2c", "-H", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    )?;
    ensure!(h2c.status == 200 && !h2c.body.contains("h2c"), "{h2c:?}");
    Ok(())
}
