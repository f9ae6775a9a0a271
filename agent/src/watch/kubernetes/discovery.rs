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

/// Whether a kind that discovery does not name any more cannot be read either, now and a moment later.
pub(super) async fn is_gone(api: &Api, id: ResourceId, version: &str) -> bool {
    for look in 0..2 {
        if look > 0 {
            tokio::time::sleep(SECOND_LOOK).await;
        }
        let path = format!("{}?limit=1", id.resource().path(version));
        if !matches!(api.get(&path, JSON).await, Err(error) if error.code() == 404) {
            return false;
        }
    }
    true
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
