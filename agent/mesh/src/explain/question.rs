//! What [`super::Explainer`] is asked: made from the words of a command line or of a URL's query.

use std::fmt::Write as _;
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
        if namespace.is_empty() {
            return Err(format!("`{text}` names no namespace: POD, NAMESPACE/POD or KEY=VALUE,…"));
        }
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

/// The words of a question, as they are written on a command line and in a query of the admin endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// See [`From::client`]; empty = there is none.
    pub from: String,
    /// See [`From::gateway`]; empty = there is none.
    pub gateway: String,
    /// Of the gateway's server.
    pub port: Option<u16>,
    /// Where `from` and `gateway` name none; empty = `default`.
    pub namespace: String,
    /// Empty = GET.
    pub method: String,
    /// The URL.
    pub url: String,
    /// `name: value`
    pub headers: Vec<String>,
    /// What chooses among weights.
    pub roll: Option<u64>,
    /// The client speaks HTTP/2.
    pub http2: bool,
}

impl Words {
    /// The question that they are.
    ///
    /// # Errors
    /// In words, when they are none.
    pub fn question(&self) -> Result<Question, String> {
        let namespace = if self.namespace.is_empty() { "default" } else { &self.namespace };
        let from = match (&*self.from, &*self.gateway) {
            ("", "") => return Err("who asks? `from` or `gateway` has to be given".to_owned()),
            ("", gateway) => From::gateway(gateway, namespace, self.port)?,
            (client, "") => From::client(client, namespace)?,
            _ => return Err("either `from` or `gateway`, and not both".to_owned()),
        };
        let method = if self.method.is_empty() { "GET" } else { &self.method };
        Question::new(from, method, &self.url, &self.headers, self.roll, self.http2)
    }

    /// From a URL's query.
    ///
    /// # Errors
    /// In words, for what cannot be read.
    pub fn of_query(query: &str) -> Result<Self, String> {
        let mut words = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("`{pair}` cannot be read"))?;
            let wrong = || format!("`{key}` cannot be `{value}`");
            match key {
                "from" => words.from = value,
                "gateway" => words.gateway = value,
                "namespace" => words.namespace = value,
                "method" => words.method = value,
                "url" => words.url = value,
                "header" if words.headers.len() < MAX_HEADERS => words.headers.push(value),
                "header" => return Err(format!("more than {MAX_HEADERS} headers")),
                "port" => words.port = Some(value.parse().map_err(|_| wrong())?),
                "roll" => words.roll = Some(value.parse().map_err(|_| wrong())?),
                "http2" => words.http2 = value.parse().map_err(|_| wrong())?,
                _ => return Err(format!("`{key}` is not asked for here")),
            }
        }
        Ok(words)
    }

    /// As a URL's query.
    pub fn to_query(&self) -> String {
        let one = |(key, value): (&str, &str)| (!value.is_empty()).then(|| format!("{key}={}", encoded(value)));
        let texts = [
            ("from", &*self.from),
            ("gateway", &self.gateway),
            ("namespace", &self.namespace),
            ("method", &self.method),
            ("url", &self.url),
        ];
        let mut parts: Vec<String> = texts.into_iter().filter_map(one).collect();
        parts.extend(self.headers.iter().map(|header| format!("header={}", encoded(header))));
        parts.extend(self.port.map(|port| format!("port={port}")));
        parts.extend(self.roll.map(|roll| format!("roll={roll}")));
        parts.extend(self.http2.then(|| "http2=true".to_owned()));
        parts.join("&")
    }
}

/// Everything but what means nothing in a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => encoded.push(byte as char),
            // Writing to a string cannot fail.
            other => drop(write!(encoded, "%{other:02X}")),
        }
    }
    encoded
}

/// A value of a URL's query, as it was before it was encoded; `None` for what is no text.
pub fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
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
    fn words_survive_a_query() {
        let words = Words {
            from: "shop/app=web,version=v1".to_owned(),
            namespace: "other".to_owned(),
            method: "POST".to_owned(),
            url: "http://web/a b?c=d&e=%2F+ä".to_owned(),
            headers: vec!["x-a: 1 & 2".to_owned(), "cookie: a=b; c=d".to_owned()],
            roll: Some(u64::MAX),
            http2: true,
            ..Words::default()
        };
        let query = words.to_query();
        assert!(query.bytes().all(|byte| byte.is_ascii_graphic()), "{query}");
        assert_eq!(Words::of_query(&query), Ok(words));
        let gateway = Words { gateway: "shop/public".to_owned(), port: Some(80), ..Words::default() };
        assert_eq!(Words::of_query(&gateway.to_query()), Ok(gateway));
        assert_eq!(Words::of_query("url=a+b%20c").map(|words| words.url), Ok("a b c".to_owned()));
        for wrong in ["url=%zz", "url=%f", "url=%ff", "roll=x", "port=99999", "pods=1"] {
            assert!(Words::of_query(wrong).is_err(), "{wrong}");
        }
        let both = Words { from: "a".to_owned(), gateway: "b".to_owned(), url: "c".to_owned(), ..Words::default() };
        assert!(both.question().is_err() && Words::default().question().is_err());
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
        assert!(client("/").is_err() && client("/web").is_err());
        assert!(client("a/b/c").is_err() && client("=x").is_err() && client("a=b,c").is_err());
    }
}
