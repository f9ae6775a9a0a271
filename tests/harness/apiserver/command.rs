//! What a test can tell the server, in one enum: executed directly where the server is a thread, sent to its control
//! port where it is a process. So both kinds can do the same.

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::User;
use super::faults::{Bookmarks, Fault};
use super::population::Population;
use super::server::{Life, Server};
use super::status::Status;
use super::{resources, write, yaml};

/// One thing to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command {
    /// Stores every document; gives the last resource version.
    Apply {
        yaml: String,
    },
    /// Deletes an object at once; gives the resource version.
    Delete {
        resource: String,
        namespace: String,
        name: String,
    },
    /// Gives an object as it is stored, or null.
    Get {
        resource: String,
        namespace: String,
        name: String,
    },
    /// Gives every object of a resource.
    List {
        resource: String,
    },
    /// Gives the present resource version.
    Version,
    /// Creates the CustomResourceDefinitions of Istio's kinds.
    InstallIstio,
    /// Creates many objects.
    Populate(Population),
    /// Makes a token known.
    AddUser {
        token: String,
        user: String,
        groups: Vec<String>,
    },
    /// Makes a token unknown.
    RemoveUser {
        token: String,
    },
    Inject(Fault),
    ClearFaults,
    SetBookmarks(Bookmarks),
    CutWatches {
        abruptly: bool,
    },
    /// Forgets all history.
    Expire,
    Open,
    Refuse,
    Stop,
    End,
    Counters,
    ResetCounters,
}

/// Executes a command.
///
/// # Errors
/// When the server says no.
pub(super) fn execute(server: &Server, command: Command) -> Result<Value> {
    match command {
        Command::Apply { yaml } => return apply(server, &yaml),
        Command::Delete { resource, namespace, name } => {
            let version =
                write::delete_whole(&mut server.store(), &resource, &namespace, &name).map_err(|s| told(&s))?;
            return Ok(version.into());
        }
        Command::Get { resource, namespace, name } => {
            let store = server.store();
            let table = store.table(&resource).with_context(|| format!("{resource} is not served"))?;
            let key = (if table.resource.namespaced { namespace.as_str().into() } else { "".into() }, name.into());
            return Ok(table.get(&key).map_or(Value::Null, |o| Value::Object(o.value())));
        }
        Command::List { resource } => {
            let store = server.store();
            let table = store.table(&resource).with_context(|| format!("{resource} is not served"))?;
            return Ok(table.objects().map(|o| Value::Object(o.value())).collect());
        }
        Command::Version => return Ok(server.store().rv().into()),
        Command::InstallIstio => {
            for kind in resources::ISTIO {
                write::put_whole(&mut server.store(), resources::definition(*kind)).map_err(|s| told(&s))?;
            }
        }
        Command::Populate(population) => return population.create(server),
        Command::AddUser { token, user, groups } => server.access().add(&token, User::new(&user, &groups)),
        Command::RemoveUser { token } => server.access().remove(&token),
        Command::Inject(fault) => server.faults.inject(fault),
        Command::ClearFaults => server.faults.clear(),
        Command::SetBookmarks(bookmarks) => server.faults.set_bookmarks(bookmarks),
        Command::CutWatches { abruptly } => server.cut_watches(abruptly),
        Command::Expire => server.store().expire(),
        Command::Open => server.live(Life::Open)?,
        Command::Refuse => server.live(Life::Refusing)?,
        Command::Stop => server.live(Life::Stopped)?,
        Command::End => server.live(Life::Ended)?,
        Command::Counters => return Ok(serde_json::to_value(server.tally.look())?),
        Command::ResetCounters => server.tally.reset(),
    }
    Ok(json!(null))
}

fn apply(server: &Server, text: &str) -> Result<Value> {
    let mut version = 0;
    for document in yaml::all(text)? {
        let about = format!("{} {}", document["kind"], document["metadata"]["name"]);
        let put = write::put_whole(&mut server.store(), document);
        version = put.map_err(|s| told(&s)).with_context(|| format!("applying {about}"))?;
    }
    Ok(version.into())
}

fn told(status: &Status) -> anyhow::Error {
    anyhow!("{}", status.json()["message"].as_str().unwrap_or_default())
}
