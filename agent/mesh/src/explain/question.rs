//! What [`super::Explainer`] is asked: made from the words of a command line or of a URL's query.

use std::net::Ipv6Addr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::crd::Labels;

/// Headers of a request, at most: more is a mistake, and each rule is told what it found of them.
const MAX_HEADERS: usize = 256;

/// A request, and where it comes from.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who sends it.
    pub from: From,
    /// Its method.
    pub method: Method,
    /// As given.
    pub url: String,
    /// `https`: what is within TLS is not looked at in the mesh.
    pub tls: bool,
    /// The client speaks HTTP/2 with prior knowledge.
    pub http2: bool,
    /// What the client connects to: a name or an address, without brackets.
    pub host: String,
    /// The port of the URL, or its scheme's.
    pub port: u16,
    /// The Host that is sent.
    pub authority: String,
    /// Without the query.
    pub path: String,
    /// What follows the first `?`.
    pub query: Option<String>,
    /// All others.
    pub headers: HeaderMap,
    /// What chooses among weights.
    pub roll: Option<u64>,
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// Some pod with these labels, which takes part.
    Labels {
        /// Its namespace.
        namespace: Arc<str>,
        /// What rules see of it.
        labels: Labels,
    },
    /// Somebody outside, through a gateway.
    Gateway {
        /// The Gateway's namespace.
        namespace: Arc<str>,
        /// The Gateway's name.
        name: Arc<str>,
        /// The port of its server; `None` = that of the URL.
        port: Option<u16>,
    },
}

impl From {
    /// `POD`, `NAMESPACE/POD`, or labels: `app=web,version=v1`, of pods in `namespace`; `NAMESPACE/` alone is any pod of
    /// one.
    ///
    /// # Errors
    /// In words, for what is none of them.
    pub fn client(text: &str, namespace: &str) -> Result<Self, String> {
        let (namespace, rest) = text.split_once('/').unwrap_or((namespace, text));
        let namespace: Arc<str> = namespace.into();
        if rest.contains('/') && !rest.contains('=') {
            return Err(format!("`{text}` is no pod: POD, NAMESPACE/POD or KEY=VALUE,…"));
        }
        if rest.is_empty() {
            return Ok(Self::Labels { namespace, labels: Labels::new() });
        }
        if !rest.contains('=') {
            return Ok(Self::Pod { namespace, name: rest.into() });
        }
        let pairs = rest.split(',').map(|pair| {
            let (key, value) = pair.split_once('=').filter(|(key, _)| !key.is_empty())?;
            Some((key.trim().into(), value.trim().into()))
        });
        let labels: Option<Vec<(Arc<str>, Arc<str>)>> = pairs.collect();
        let labels = labels.ok_or_else(|| format!("`{rest}` are no labels: KEY=VALUE,KEY=VALUE"))?;
        Ok(Self::Labels { namespace, labels: labels.into_iter().collect() })
    }

    /// A Gateway, as `NAMESPACE/NAME`, or `NAME` in `namespace`.
    ///
    /// # Errors
    /// In words, for what is no name.
    pub fn gateway(text: &str, namespace: &str, port: Option<u16>) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
        if name.is_empty() || name.contains('/') {
            return Err(format!("`{text}` is no Gateway: NAMESPACE/NAME"));
        }
        Ok(Self::Gateway { namespace: namespace.into(), name: name.into(), port })
    }
}

impl Question {
    /// `url` may lack its scheme, which is `http` then; `headers` are `name: value`, of which `Host` replaces that of the
    /// URL.
    ///
    /// # Errors
    /// In words, for what cannot be sent.
    pub fn new(
        from: From,
        method: &str,
        url: &str,
        headers: &[String],
        roll: Option<u64>,
        http2: bool,
    ) -> Result<Self, String> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?;
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let tls = match &*scheme.to_ascii_lowercase() {
            "http" => false,
            "https" => true,
            other => return Err(format!("`{other}` is no scheme: http or https")),
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = crate::route::split_port(authority);
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(format!("`{url}` names no host"));
        }
        // Only an address of IPv6 has colons of its own.
        let has_colon = host.contains(':') && host.parse::<Ipv6Addr>().is_err();
        if has_colon || (port.is_none() && authority.len() > host.len() && !authority.ends_with(']')) {
            return Err(format!("`{url}` has no port that there is"));
        }
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let mut question = Self {
            from,
            method,
            url: url.to_owned(),
            tls,
            http2,
            host: host.to_owned(),
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query: query.map(str::to_owned),
            headers: HeaderMap::new(),
            roll,
        };
        if headers.len() > MAX_HEADERS {
            return Err(format!("more than {MAX_HEADERS} headers"));
        }
        for header in headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| format!("`{header}` is no header: NAME: VALUE"))?;
            let value = value.trim();
            let wrong = || format!("`{header}` cannot be sent");
            let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
            if name == http::header::HOST {
                value.clone_into(&mut question.authority);
            } else {
                question.headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
            }
        }
        let host = HeaderValue::from_str(&question.authority).map_err(|_| format!("`{url}` names no host"))?;
        question.headers.insert(http::header::HOST, host);
        Ok(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(url: &str, headers: &[&str]) -> Result<Question, String> {
        let from = From::client("shop/web", "default").expect("a pod");
        let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
        Question::new(from, "GET", url, &headers, None, false)
    }

    #[test]
    fn urls_are_read_as_curl_reads_them() {
        for (url, host, port, authority, path, query) in [
            ("http://web/a?b=c", "web", 80, "web", "/a", Some("b=c")),
            ("web:8080", "web", 8080, "web:8080", "/", None),
            ("https://[fd00::1]/x#y", "fd00::1", 443, "[fd00::1]", "/x", None),
            ("http://[fd00::1]:81?q", "fd00::1", 81, "[fd00::1]:81", "/", Some("q")),
            ("http://u:p@web.shop/", "web.shop", 80, "web.shop", "/", None),
        ] {
            let asked = ask(url, &[]).expect(url);
            let got = (&*asked.host, asked.port, &*asked.authority, &*asked.path, asked.query.as_deref());
            assert_eq!(got, (host, port, authority, path, query), "{url}");
        }
        for url in ["", "http://", "ftp://x", "http://web:99999/", "http://a b/", "http://web:x/"] {
            assert!(ask(url, &[]).is_err(), "{url}");
        }
    }

    #[test]
    fn a_host_header_is_sent_and_not_dialled() {
        let asked =
            ask("http://10.0.0.1:8080/", &["host: shop.example.com", "X-User: jo", "x-user: ann"]).expect("good");
        assert_eq!((&*asked.host, &*asked.authority), ("10.0.0.1", "shop.example.com"));
        assert_eq!(asked.headers.get_all("x-user").iter().count(), 2);
        assert_eq!(asked.headers["host"], "shop.example.com");
        assert!(ask("web", &["no colon"]).is_err() && ask("web", &["a b: c"]).is_err());
    }

    #[test]
    fn clients_are_pods_or_labels() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Labels>();
        let client = |text: &str| From::client(text, "default");
        let pod = |namespace: &str, name: &str| From::Pod { namespace: namespace.into(), name: name.into() };
        assert_eq!(client("web-1"), Ok(pod("default", "web-1")));
        assert_eq!(client("shop/web-1"), Ok(pod("shop", "web-1")));
        let of = |namespace: &str, pairs: &[(&str, &str)]| From::Labels {
            namespace: namespace.into(),
            labels: labels(pairs),
        };
        assert_eq!(client("app=web,version=v1"), Ok(of("default", &[("app", "web"), ("version", "v1")])));
        assert_eq!(client("shop/app=web"), Ok(of("shop", &[("app", "web")])));
        assert_eq!(client("shop/"), Ok(of("shop", &[])));
        assert!(client("a/b/c").is_err() && client("=x").is_err() && client("a=b,c").is_err());
    }
}
