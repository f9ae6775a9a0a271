//! Every object that an analysis looks at, listed once from the API server: with the right to list alone, and without
//! the kinds that it does not serve or does not show. Used by `cli` (`analyze`).

use std::collections::BTreeSet;

use kube::Client;
use weir_mesh::crd::{Keep, Node, RESOURCES, parse_json};

/// Objects on a page: what `kubectl` asks for.
const PAGE: usize = 500;
/// Certificates are asked for one by one; a cluster has some dozens.
const MAX_CREDENTIALS: usize = 1_000;

const METADATA: Keep = Keep::Fields(&[
    ("name", Keep::All),
    ("namespace", Keep::All),
    ("uid", Keep::All),
    ("creationTimestamp", Keep::All),
    ("labels", Keep::All),
    ("annotations", Keep::All),
    ("ownerReferences", Keep::All),
]);
/// Without what servers write for themselves, which is the greater part of most objects.
const OBJECT: Keep = Keep::Fields(&[
    ("metadata", METADATA),
    ("spec", Keep::All),
    ("data", Keep::All),
    (
        "status",
        Keep::Fields(&[
            ("phase", Keep::All),
            ("podIP", Keep::All),
            ("podIPs", Keep::All),
            ("conditions", Keep::All),
            ("addresses", Keep::All),
        ]),
    ),
]);
const LIST: Keep = Keep::Fields(&[("metadata", Keep::Fields(&[("continue", Keep::All)])), ("items", OBJECT)]);

/// A kind that is listed.
struct Asked {
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    kind: &'static str,
    /// What else is asked for, as a query.
    query: String,
}

/// Kinds beyond those that the agent reads: group, versions, name in URLs, name.
const MORE: [(&str, &[&str], &str, &str); 5] = [
    ("", &["v1"], "configmaps", "ConfigMap"),
    ("apps", &["v1"], "deployments", "Deployment"),
    ("apps", &["v1"], "statefulsets", "StatefulSet"),
    ("apps", &["v1"], "daemonsets", "DaemonSet"),
    ("apiextensions.k8s.io", &["v1"], "customresourcedefinitions", "CustomResourceDefinition"),
];

fn more() -> impl Iterator<Item = Asked> {
    MORE.into_iter().map(|(group, versions, plural, kind)| {
        // Of these one is of interest: Istio's mesh configuration.
        let query = if kind == "ConfigMap" { "&fieldSelector=metadata.name%3Distio" } else { "" };
        Asked { group, versions, plural, kind, query: query.to_owned() }
    })
}

/// One object.
#[derive(Debug)]
pub struct Served {
    /// `group/version` that it was asked for.
    pub api_version: String,
    /// Its kind.
    pub kind: &'static str,
    /// What is kept of it.
    pub node: Node,
}

/// What the API server showed.
#[derive(Debug, Default)]
pub struct Listing {
    /// The objects, kind by kind.
    pub objects: Vec<Served>,
    /// Kinds that are there and that one may not list, or not everywhere, and why.
    pub hidden: Vec<(&'static str, String)>,
    /// Of the API server, `v1.33.0`; `None` where it does not say.
    pub kubernetes: Option<String>,
}

/// Lists everything. Of a kind that one may not list everywhere, the objects of `namespace` are listed.
///
/// # Errors
/// When the API server cannot be asked, or its answer cannot be read.
pub async fn list(client: &Client, namespace: &str) -> anyhow::Result<Listing> {
    // Everybody may ask for it, but where an administrator took that away.
    let kubernetes = client.apiserver_version().await.ok().map(|version| version.git_version);
    let mut listing = Listing { kubernetes, ..Listing::default() };
    let known = RESOURCES.iter().map(|resource| Asked {
        group: resource.group,
        versions: resource.versions,
        plural: resource.plural,
        kind: resource.kind,
        query: String::new(),
    });
    // Endpoints are the pods' business.
    for asked in known.filter(|asked| asked.kind != "EndpointSlice").chain(more()) {
        of_kind(client, &asked, namespace, &mut listing).await?;
    }
    // Only those that a Gateway names: the others are nobody's business.
    for name in credentials(&listing) {
        let query = format!("&fieldSelector=metadata.name%3D{name}");
        let asked = Asked { group: "", versions: &["v1"], plural: "secrets", kind: "Secret", query };
        of_kind(client, &asked, namespace, &mut listing).await?;
    }
    listing.hidden.dedup();
    Ok(listing)
}

/// The Secrets that Gateways name, at most [`MAX_CREDENTIALS`].
fn credentials(listing: &Listing) -> BTreeSet<String> {
    let items = |node: Option<&Node>| node.cloned().map(Node::into_items).unwrap_or_default();
    let gateways = listing.objects.iter().filter(|served| served.kind == "Gateway");
    let servers = gateways.flat_map(|served| items(served.node.get("spec").and_then(|spec| spec.get("servers"))));
    let names = servers.filter_map(|server| {
        let name = server.get("tls")?.get("credentialName")?.text()?;
        let name = name.rsplit('/').next().unwrap_or(name);
        // Anything else is no name, and must not end in a query.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        (!name.is_empty() && name.bytes().all(plain)).then(|| name.to_owned())
    });
    names.collect::<BTreeSet<_>>().into_iter().take(MAX_CREDENTIALS).collect()
}

async fn of_kind(client: &Client, asked: &Asked, namespace: &str, listing: &mut Listing) -> anyhow::Result<()> {
    for version in asked.versions {
        if of_version(client, asked, version, namespace, listing).await? {
            break;
        }
    }
    Ok(())
}

/// False when the kind is not served at this version.
async fn of_version(
    client: &Client,
    asked: &Asked,
    version: &str,
    namespace: &str,
    listing: &mut Listing,
) -> anyhow::Result<bool> {
    let api_version = if asked.group.is_empty() { version.to_owned() } else { format!("{}/{version}", asked.group) };
    let root = if asked.group.is_empty() { "/api" } else { "/apis" };
    let everywhere = format!("{root}/{api_version}/{}", asked.plural);
    match pages(client, &everywhere, asked, &api_version, listing).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == http::StatusCode::NOT_FOUND => Ok(false),
        Err(kube::Error::Api(status)) if status.code == http::StatusCode::FORBIDDEN => {
            listing.hidden.push((asked.kind, status.message.clone()));
            let own = format!("{root}/{api_version}/namespaces/{namespace}/{}", asked.plural);
            match pages(client, &own, asked, &api_version, listing).await {
                // Neither there: that it is hidden has been said.
                Ok(()) | Err(kube::Error::Api(_)) => Ok(true),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("listing {}", asked.plural))),
    }
}

async fn pages(
    client: &Client,
    path: &str,
    asked: &Asked,
    api_version: &str,
    listing: &mut Listing,
) -> Result<(), kube::Error> {
    let mut next = String::new();
    loop {
        let uri = format!("{path}?limit={PAGE}{}{next}", asked.query);
        let request = http::Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)?;
        let text = client.request_text(request).await?;
        let page = parse_json(&text, LIST).map_err(kube::Error::SerdeError)?;
        let token = page.get("metadata").and_then(|metadata| metadata.get("continue")).and_then(Node::text);
        next = token
            .filter(|token| !token.is_empty())
            .map(|token| format!("&continue={}", escaped(token)))
            .unwrap_or_default();
        let items = page.get("items").cloned().map(Node::into_items).unwrap_or_default();
        let served = |node| Served { api_version: api_version.to_owned(), kind: asked.kind, node };
        listing.objects.extend(items.into_iter().map(served));
        if next.is_empty() {
            return Ok(());
        }
    }
}

/// For a query: tokens are base64, of which `+`, `/` and `=` have a meaning there.
fn escaped(token: &str) -> String {
    token.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").replace('&', "%26")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use kube::{Client, Config};
    use serde_json::json;

    use super::{escaped, list};
    use crate::cluster::fake::{Shared, run, serve};

    #[test]
    fn a_token_survives_a_query() {
        assert_eq!(escaped("a+b/c=&%"), "a%2Bb%2Fc%3D%26%25");
    }

    #[test]
    fn the_version_of_the_server_is_asked_for_and_need_not_be_told() {
        run(async {
            let fake = Shared::default();
            let url = serve(&fake).await.parse().expect("a URL");
            let client = Client::try_from(Config::new(url)).expect("a client");
            let version = async || list(&client, "shop").await.expect("nothing is served").kubernetes;
            let told = json!({"major": "1", "minor": "29", "gitVersion": "v1.29.4"});
            fake.lock().expect("no panic").put("/version".into(), told);
            assert_eq!(version().await.as_deref(), Some("v1.29.4"));
            fake.lock().expect("no panic").refused = vec![("/version", StatusCode::FORBIDDEN)];
            assert_eq!(version().await, None);
        });
    }
}
