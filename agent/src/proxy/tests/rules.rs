//! What a rule does with a request itself: redirects, direct responses, rewrites, headers.

use ::http::Request;
use http_body_util::{BodyExt, Full};

use super::harness::{Mesh, mirroring, named, rules, soon};

/// What the origin was asked, after the path of this request.
async fn told(mesh: &Mesh, path: &str) -> String {
    mesh.client().await.get(path).await.1
}

#[tokio::test]
async fn a_redirect_and_a_direct_response_are_the_rules_own() {
    let rules = rules(
        "http: [
          {name: moved, match: [{uri: {prefix: /old}}], redirect: {uri: /new, authority: c.example, redirectCode: 308}},
          {name: gone, match: [{uri: {exact: /gone}}], directResponse: {status: 410, body: {string: no more}},
           headers: {response: {set: {content-type: text/x-why, x-a: '1'}}}},
          {name: empty, match: [{uri: {exact: /empty}}], directResponse: {status: 204}},
          {route: [{destination: {host: b}}]}]",
    );
    let mut mesh = Mesh::ruled(&[("b", &[named("b").await])], &rules);
    let mut client = mesh.client().await;
    let get = |path: &str| Request::get(path).header("host", "b").body(Full::default()).unwrap();
    let moved = client.send(get("/old/x?q=1")).await;
    assert_eq!(
        (moved.status().as_u16(), &moved.headers()["location"]),
        (308, &"http://c.example/new?q=1".parse().unwrap())
    );
    let gone = client.send(get("/gone")).await;
    assert_eq!((gone.status().as_u16(), &gone.headers()["content-type"]), (410, &"text/x-why".parse().unwrap()));
    assert_eq!(gone.headers()["x-a"], "1");
    assert_eq!(soon(gone.into_body().collect()).await.unwrap().to_bytes(), "no more");
    assert_eq!(client.get("/empty").await, (204, String::new()));
    assert_eq!(client.get("/").await, (200, "b".into()));
    for want in [
        "\"GET /old/x?q=1 HTTP/1.1\" 308 - direct_response - \"-\" 0 0 ",
        "\"GET /gone HTTP/1.1\" 410 - direct_response - \"-\" 0 7 ",
        "\"GET /empty HTTP/1.1\" 204 - direct_response - \"-\" 0 0 ",
        "\"GET / HTTP/1.1\" 200 - via_upstream - \"-\" 0 1 ",
    ] {
        let line = soon(mesh.log.recv()).await.unwrap();
        assert!(line.contains(want), "{line}");
    }
    assert_eq!(mesh.proxy.counters().upstream_connects, 1);
}

#[tokio::test]
async fn a_rewrite_changes_what_the_upstream_sees_and_the_log_names_what_was_asked() {
    let rules = rules(
        "http: [
          {match: [{uri: {prefix: /v2}}], rewrite: {uri: /, authority: inner.example}, route: [{destination: {host: b}}]},
          {match: [{uri: {exact: /a}}], rewrite: {uri: /whole}, route: [{destination: {host: b}}]},
          {match: [{uri: {prefix: /service}}], rewrite: {uriRegexRewrite: {match: '^/service/([^/]+)(/.*)$',
           rewrite: '\\\\2/instance/\\\\1'}}, route: [{destination: {host: b}}]},
          {rewrite: {uri: /foo}, route: [{destination: {host: b}}]}]"
            .replace("\\\\", "\\")
            .as_str(),
    );
    let mut mesh = Mesh::ruled(&[("b", &[mirroring().await])], &rules);
    for (asked, seen) in [
        ("/v2/x?q=%20", "GET //x?q=%20 inner.example\n"),
        ("/a?z", "GET /whole?z b\n"),
        ("/service/foo/v1", "GET /v1/instance/foo b\n"),
        ("/other", "GET /fooother b\n"),
    ] {
        let told = told(&mesh, asked).await;
        assert!(told.starts_with(seen), "{asked}: {told}");
        assert!(told.contains(&format!("x-envoy-original-path: {asked}\n")), "{told}");
        let line = soon(mesh.log.recv()).await.unwrap();
        assert!(line.contains(&format!("\"GET {asked} HTTP/1.1\" 200 - ")), "{line}");
        assert_eq!(line.contains("\"inner.example\""), asked.starts_with("/v2"), "{line}");
    }
}

#[tokio::test]
async fn headers_are_removed_set_and_added_first_by_the_rule_then_by_the_destination() {
    let rules = rules(
        "http: [{
          headers: {
            request: {set: {x-set: rule, x-both: rule, x-from: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(x-client?x-none)% 100%%',
                            x-nothing: '%REQ(x-none)%'},
                      add: {x-add: rule}, remove: [x-secret, x-both]},
            response: {set: {server: weir, x-path: '%REQ(:PATH)%'}, remove: [x-origin]}},
          route: [{destination: {host: b}, headers: {request: {set: {x-set: destination, host: told.example},
                   add: {x-add: destination}}, response: {add: {x-more: '1', x-origin: again}}}}]}]",
    );
    let mesh = Mesh::ruled(&[("b", &[mirroring().await])], &rules);
    let request = Request::get("/p?q").header("host", "b").header("x-client", "me").header("x-secret", "1");
    let request = request.header("x-both", "client").header("x-add", "client").body(Full::default()).unwrap();
    let response = mesh.client().await.send(request).await;
    let of = |name: &str| -> Vec<_> {
        response.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!((of("server"), of("x-path")), (vec!["weir".to_owned()], vec!["/p?q".to_owned()]));
    assert_eq!((of("x-origin"), of("x-more")), (vec!["again".to_owned()], vec!["1".to_owned()]));
    let told = soon(response.into_body().collect()).await.unwrap().to_bytes();
    let told = String::from_utf8(told.into()).unwrap();
    assert!(told.starts_with("GET /p?q told.example\n"), "{told}");
    let mut lines: Vec<_> = told.lines().filter(|line| line.starts_with("x-")).collect();
    lines.sort_unstable();
    let want = [
        "x-add: client",
        "x-add: destination",
        "x-add: rule",
        "x-both: rule",
        "x-client: me",
        "x-from: 127.0.0.1 me 100%",
        "x-set: destination",
    ];
    assert_eq!(lines, want);
}

#[tokio::test]
async fn a_rule_cannot_break_the_framing() {
    let rules = rules(
        "http: [{headers: {request: {set: {content-length: '5', transfer-encoding: chunked, connection: close}},
                           response: {set: {content-length: '1'}, remove: [connection]}},
                 route: [{destination: {host: b}}]}]",
    );
    let mesh = Mesh::ruled(&[("b", &[mirroring().await])], &rules);
    let mut client = mesh.client().await;
    for _ in 0..3 {
        let (status, told) = client.get("/").await;
        assert_eq!(status, 200);
        assert!(!told.contains("content-length") && !told.contains("transfer-encoding"), "{told}");
    }
    assert_eq!(mesh.proxy.counters().upstream_connects, 1);
}
