//! Rate limits over real sockets.

use ::http::Request;
use http_body_util::Full;

use super::harness::{Mesh, named, rules, soon};
use crate::proxy::Flag;

/// A VirtualService for `b` with this annotation and these rules.
fn limited(annotation: &str, http: &str) -> String {
    rules(&format!("http: [{http}]"))
        .replace("metadata: {", &format!("metadata: {{annotations: {{weir.mesh/rate-limit: '{annotation}'}}, "))
}

#[tokio::test]
async fn what_is_beyond_the_limit_is_refused_and_everybody_is_told_how_much_is_left() {
    let rules = limited(
        "few: 3/h; many: 1000/h",
        "{name: few, match: [{uri: {prefix: /few}}], route: [{destination: {host: b}}]}, \
         {name: many, match: [{uri: {prefix: /many}}], route: [{destination: {host: b}}]}, \
         {name: free, route: [{destination: {host: b}}]}",
    );
    let mut mesh = Mesh::ruled(&[("b", &[named("b").await])], &rules);
    let mut answers = Vec::new();
    // Several connections, so that both workers draw from the one bucket.
    for _ in 0..5 {
        let request = Request::get("/few").header("host", "b").body(Full::default()).unwrap();
        let answer = mesh.client().await.send(request).await;
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let left = header("x-ratelimit-remaining").unwrap();
        assert_eq!(header("x-ratelimit-limit").as_deref(), Some("3"));
        let reset: u64 = header("x-ratelimit-reset").unwrap().parse().unwrap();
        assert!((1100..=3600).contains(&reset), "{reset} s");
        answers.push(format!("{} {left} {}", answer.status().as_u16(), header("x-envoy-ratelimited").is_some()));
    }
    assert_eq!(answers, ["200 2 false", "200 1 false", "200 0 false", "429 0 true", "429 0 true"]);
    let mut client = mesh.client().await;
    assert_eq!(client.get("/few").await, (429, "local_rate_limited".into()));
    assert_eq!(client.get("/many").await.0, 200, "another rule's bucket");
    let free = client.send(Request::get("/").header("host", "b").body(Full::default()).unwrap()).await;
    assert!(free.status() == 200 && !free.headers().contains_key("x-ratelimit-limit"));
    assert_eq!(mesh.proxy.counters().flag(Flag::RateLimited), 3);
    let mut refused = Vec::new();
    while refused.len() < 3 {
        let line = soon(mesh.log.recv()).await.unwrap();
        refused.extend(line.contains(" 429 ").then_some(line));
    }
    assert!(refused[0].contains(" 429 RL local_rate_limited - \"-\" 0 18 "), "{}", refused[0]);
}
