//! Definitions and objects that are not weir's: planted before the installation, and compared after the removal byte
//! for byte, as the API server gives them. Steps of `e2e`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kubectl::{Kubectl, NAMESPACE};
use super::{Args, Run, manifest};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// The definition in `tests/e2e/foreign.yaml`.
const PLANTED: &str = "destinationrules.networking.istio.io";
/// An API server serves a new definition within a second or two.
const SERVED: Duration = Duration::from_secs(30);

/// Answers by path, as they were.
pub(super) type Bytes = BTreeMap<String, String>;

/// Makes a definition that somebody else could have made, where there is none, with an object, and writes down all
/// definitions that are there before weir is.
pub(super) fn plant(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("Somebody else's definitions and objects", "they are there before weir is")?;
    run.kubectl.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"))?;
    if run.kubectl.run(&["get", "crd", PLANTED]).is_err() {
        run.kubectl.apply(&manifest("tests/e2e/foreign.yaml", &[])?)?;
    }
    run.kubectl.run(&["wait", "--for=condition=Established", &format!("crd/{PLANTED}"), "--timeout=30s"])?;
    let object = manifest("tests/e2e/foreign-object.yaml", &[])?;
    Kubectl::until("the planted kind is served", SERVED, || run.kubectl.apply(&object).map(Some))?;
    let paths = definitions(run)?.into_iter().chain([object_path()]);
    run.foreign = read(run, paths)?;
    run.say(&format!("{} definitions and an object of {PLANTED}", run.foreign.len() - 1))
}

/// After the removal: what was there is as it was.
pub(super) fn compare(run: &mut Run, _args: &Args) -> Result<()> {
    let before = std::mem::take(&mut run.foreign);
    let now = read(run, before.keys().cloned())?;
    let changed = differences(&before, &now);
    let bytes: usize = now.values().map(String::len).sum();
    let text = if changed.is_empty() {
        format!("{} definitions and objects that are not weir's: {bytes} bytes, none changed", now.len())
    } else {
        changed.join("\n       ")
    };
    run.check(!before.is_empty() && changed.is_empty(), &text)
}

/// Takes away what [`plant`] made, and nothing that was there before.
pub(super) fn uproot(run: &Run) -> Result<()> {
    run.kubectl.run(&["delete", "crd", "-l", "weir-e2e=planted", "--ignore-not-found", "--timeout=60s"])?;
    Ok(())
}

fn definitions(run: &Run) -> Result<Vec<String>> {
    let names = run.kubectl.run(&["get", "crds", "-o", "name"])?;
    let names = names.lines().filter_map(|line| line.split_once('/').map(|(_, name)| name));
    Ok(names.map(|name| format!("{DEFINITIONS}/{name}")).collect())
}

fn object_path() -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/destinationrules/foreign")
}

/// Each by itself, since `--raw` gives what the server sent, managed fields and versions included.
fn read(run: &Run, paths: impl Iterator<Item = String>) -> Result<Bytes> {
    let read = |path: String| {
        let text = run.kubectl.outside(&["get", "--raw", &path]).with_context(|| path.clone());
        match text {
            Err(error) if format!("{error:#}").contains("NotFound") => Ok((path, String::new())),
            other => other.map(|text| (path, text)),
        }
    };
    paths.map(read).collect()
}

/// One line for each path whose bytes are others, with the place where they begin to be.
fn differences(before: &Bytes, now: &Bytes) -> Vec<String> {
    let differ = |(path, old): (&String, &String)| {
        let new = now.get(path).filter(|new| !new.is_empty());
        match new {
            None => Some(format!("{path} is gone")),
            Some(new) if new == old => None,
            Some(new) => {
                let at = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
                let around = |text: &str| {
                    String::from_utf8_lossy(text.as_bytes().get(at..).unwrap_or(&[]))
                        .chars()
                        .take(60)
                        .collect::<String>()
                };
                Some(format!("{path} differs from byte {at}: {:?} was {:?}", around(new), around(old)))
            }
        }
    };
    before.iter().filter_map(differ).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_a_difference_and_a_missing_object_is_one() {
        let bytes =
            |texts: &[(&str, &str)]| texts.iter().map(|(p, t)| (p.to_string(), t.to_string())).collect::<Bytes>();
        let before = bytes(&[("/a", r#"{"v":"1"}"#), ("/b", "{}"), ("/c", "{}")]);
        assert_eq!(differences(&before, &before), [""; 0]);
        let now = bytes(&[("/a", r#"{"v":"2"}"#), ("/b", ""), ("/c", "{}"), ("/d", "{}")]);
        let said = differences(&before, &now);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("/a differs from byte 6") && said[1] == "/b is gone", "{said:?}");
    }
}
