//! Which of the kinds that weir reads an API server serves, and at which version. Custom kinds come and go with their
//! definitions; Kubernetes' own are always there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use weir_mesh::crd::Role;
use weir_mesh::store::ResourceId;

use super::client::{Api, Error};

/// What plain answers are asked for in.
const JSON: &str = "application/json";
/// A kind is gone when it was not found twice, this long apart: with several API servers, one may be behind.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// For both looks, of all kinds together: nothing else is discovered meanwhile. What is not known to be gone by then is
/// asked for again at the next look.
const GONE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Served>,
}

#[derive(Deserialize)]
struct Served {
    name: String,
}

/// The kinds that are served, each with the version to read it at.
///
/// # Errors
/// When the answer is not whole: then nothing is known to be gone.
pub(super) async fn served(api: &Api) -> Result<BTreeMap<ResourceId, &'static str>, Error> {
    let groups: Groups = parse(&api.get("/apis", JSON).await?)?;
    let versions: BTreeSet<(&str, &str)> = groups
        .groups
        .iter()
        .flat_map(|group| group.versions.iter().map(|version| (group.name.as_str(), version.version.as_str())))
        .collect();
    let mut tables: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for id in ResourceId::all() {
        let row = id.resource();
        if row.role == Role::Core {
            found.insert(id, row.versions[0]);
            continue;
        }
        for version in row.versions.iter().filter(|version| versions.contains(&(row.group, **version))) {
            let table = match tables.entry((row.group, version)) {
                std::collections::btree_map::Entry::Occupied(table) => table.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => {
                    let answer = match api.get(&format!("/apis/{}/{version}", row.group), JSON).await {
                        Ok(body) => parse(&body)?,
                        // Its last kind went between the two questions.
                        Err(error) if error.code() == 404 => Resources { resources: Vec::new() },
                        Err(error) => return Err(error),
                    };
                    free.insert(answer.resources.into_iter().map(|resource| resource.name).collect())
                }
            };
            if table.contains(row.plural) {
                found.insert(id, *version);
                break;
            }
        }
    }
    Ok(found)
}

/// Whether what the API server says of its kinds is whole. While it starts, custom kinds are missing in it; `/readyz` says
/// so. Whoever may not ask that has to trust it.
///
/// # Errors
/// When it says that it is not ready, or does not answer.
pub(super) async fn ready(api: &Api) -> Result<(), Error> {
    match api.get("/readyz", "*/*").await {
        Err(error) if !matches!(error.code(), 401 | 403 | 404) => Err(error),
        _ => Ok(()),
    }
}

/// Those of `kinds`, which discovery does not name any more, that cannot be read either, now and a moment later.
pub(super) async fn gone(api: &Api, kinds: Vec<(ResourceId, &str)>) -> Vec<ResourceId> {
    let looks = async {
        let first = not_found(api, kinds).await;
        if first.is_empty() {
            return first;
        }
        tokio::time::sleep(SECOND_LOOK).await;
        // One that starts finds nothing, either.
        if ready(api).await.is_err() {
            return Vec::new();
        }
        not_found(api, first).await
    };
    let gone = tokio::time::timeout(GONE_WITHIN, looks).await.unwrap_or_default();
    gone.into_iter().map(|(id, _)| id).collect()
}

/// Asks for all at the same time: they are a few dozen at most, on one connection.
async fn not_found<'v>(api: &Api, kinds: Vec<(ResourceId, &'v str)>) -> Vec<(ResourceId, &'v str)> {
    let looks = kinds.into_iter().map(|(id, version)| async move {
        let path = format!("{}?limit=1", id.resource().path(version));
        let absent = matches!(api.get(&path, JSON).await, Err(error) if error.code() == 404);
        absent.then_some((id, version))
    });
    futures_util::future::join_all(looks).await.into_iter().flatten().collect()
}

/// Whether the API server is known to understand a watch that begins with a list. Older ones take the question for an
/// ordinary watch and never say where the list ends.
pub(super) async fn streams_lists(api: &Api) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Version {
        major: String,
        minor: String,
    }
    let version: Version = parse(&api.get("/version", JSON).await?)?;
    let number = |text: &str| -> u32 {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse().unwrap_or(0)
    };
    Ok((number(&version.major), number(&version.minor)) >= (1, 32))
}

fn parse<'t, T: Deserialize<'t>>(body: &'t [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Garbled(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::cluster::fake::{Shared, run, serve};

    /// All of Istio's that are compiled, at the version that is preferred.
    fn policies() -> Vec<(ResourceId, &'static str)> {
        ResourceId::all()
            .filter(|id| id.resource().role == Role::Policy)
            .map(|id| (id, id.resource().versions[0]))
            .collect()
    }

    #[test]
    fn an_api_server_that_starts_is_not_believed() {
        run(async {
            let fake = Shared::default();
            let api = Api::at(&serve(&fake).await).expect("a URL");
            ready(&api).await.expect("none that knows no /readyz (404) is kept waiting for");
            for code in [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED] {
                fake.lock().expect("no panic").refused = vec![("/readyz", code)];
                ready(&api).await.expect("who may not ask trusts it");
            }
            fake.lock().expect("no panic").refused = vec![("/readyz", StatusCode::INTERNAL_SERVER_ERROR)];
            assert_eq!(ready(&api).await.expect_err("it says that it is not").code(), 500);
            assert!(gone(&api, policies()).await.is_empty(), "nothing is found, and nothing is known to be gone");
            fake.lock().expect("no panic").refused.clear();
            fake.lock().expect("no panic").put("/readyz".into(), json!({}));
            assert_eq!(gone(&api, policies()).await.len(), policies().len());
        });
    }

    #[test]
    fn many_kinds_are_looked_for_at_the_same_time() {
        run(async {
            let fake = Shared::default();
            let api = Api::at(&serve(&fake).await).expect("a URL");
            fake.lock().expect("no panic").lists = vec!["/apis/networking.istio.io/v1/virtualservices"];
            let started = Instant::now();
            let gone = gone(&api, policies()).await;
            let took = started.elapsed();
            assert!(took >= SECOND_LOOK && took < SECOND_LOOK * 2, "{took:?} for {} kinds", policies().len());
            assert_eq!(gone.len(), policies().len() - 1);
            assert!(gone.iter().all(|id| id.resource().kind != "VirtualService"), "it can still be read");
        });
    }
}
