//! Which cgroup is the kubelet's for all pods of this node. Used by [`super::Hierarchy::kubepods`].
//!
//! | | cgroupfs driver | systemd driver |
//! |---|---|---|
//! | a node | `kubepods` | `kubepods.slice` |
//! | a kubelet with a root of its own (kind) | `kubelet/kubepods` | `kubelet.slice/kubelet-kubepods.slice` |
//!
//! A node may be a container itself and have others beside it in the same tree, so nothing is ever taken from below a
//! cgroup that does not also hold the agent.

use std::fs;
use std::path::{Path, PathBuf};

/// What kind and kubeadm call the kubelet's own cgroup.
const KUBELET: &str = "kubelet";

/// Those of this node, the one in use first. `own` is the agent's cgroup, when it can be seen.
///
/// A kubelet whose cgroup driver was changed leaves the old tree behind: then there are two.
pub(super) fn find(mount: &Path, own: Option<&Path>) -> Vec<PathBuf> {
    let own = own.filter(|own| own.starts_with(mount)).unwrap_or(mount);
    let ancestors = || own.ancestors().take_while(|path| path.starts_with(mount));
    // The innermost: a node that is a pod of another cluster has that cluster's further out.
    if let Some(above) = ancestors().find(|path| is_one(path)) {
        return vec![above.to_owned()];
    }
    let mut found = ancestors().map(beside).find(|found| !found.is_empty()).unwrap_or_default();
    found.sort_by_key(|path| (!is_populated(path), path.clone()));
    found
}

/// Whether a name is `kubepods`, `kubepods.slice` or `kubelet-kubepods.slice`, and not that of a part of them.
pub(super) fn is_one(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
    let name = name.strip_suffix(".slice").unwrap_or(name);
    name == "kubepods" || name.ends_with("-kubepods")
}

fn beside(ancestor: &Path) -> Vec<PathBuf> {
    let children = directories(ancestor);
    let kubelets = children
        .iter()
        .filter(|path| path.file_stem().is_some_and(|stem| stem == KUBELET))
        .flat_map(|path| directories(path));
    let found = children.iter().cloned().chain(kubelets);
    found.filter(|path| is_one(path)).collect()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Version 1 has no such file: then the name decides.
fn is_populated(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a tree of these directories by an agent in `own`; paths relative to the mount.
    fn found(tree: &[&str], own: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for path in tree.iter().chain([&own]) {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        let found = find(directory.path(), Some(&directory.path().join(own)));
        found.iter().map(|p| p.strip_prefix(directory.path()).unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn an_agent_in_a_pod_is_below_it() {
        let nodes = ["node1/kubepods/besteffort", "node2/kubepods/besteffort", "kubepods"];
        assert_eq!(found(&nodes, "node2/kubepods/besteffort/podu/c"), ["node2/kubepods"]);
        let kind = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                    kubelet-kubepods-besteffort-podu.slice/cri-containerd-c.scope";
        assert_eq!(found(&["kubepods.slice"], kind), ["kubelet.slice/kubelet-kubepods.slice"]);
        let nested = format!("kubepods/burstable/podouter/c/{kind}");
        let inner = "kubepods/burstable/podouter/c/kubelet.slice/kubelet-kubepods.slice";
        assert_eq!(found(&[], &nested), [inner], "a node that is a pod of another cluster");
    }

    #[test]
    fn an_agent_outside_of_pods_is_beside_it() {
        assert_eq!(found(&["kubepods/burstable"], "system.slice/weir"), ["kubepods"]);
        assert_eq!(found(&["kubepods.slice/kubepods-burstable.slice"], "system.slice/weir"), ["kubepods.slice"]);
        assert_eq!(
            found(&["kubelet.slice/kubelet-kubepods.slice"], "init.scope"),
            ["kubelet.slice/kubelet-kubepods.slice"]
        );
        assert_eq!(found(&["kubelet/kubepods"], ""), ["kubelet/kubepods"]);
        assert_eq!(found(&["kubepods", "node1/kubepods", "node2/kubepods"], "node2/system"), ["node2/kubepods"]);
    }

    #[test]
    fn another_nodes_is_never_taken() {
        assert_eq!(found(&["node1/kubepods", "docker/x/kubelet/kubepods"], "node2/system"), [""; 0]);
        assert_eq!(found(&["node1/kubepods"], ""), [""; 0]);
        assert_eq!(found(&["kubepods-burstable.slice", "notkubepods", "kubepods.scope"], "a"), [""; 0]);
    }

    #[test]
    fn of_two_the_one_in_use_is_first() {
        let directory = tempfile::tempdir().unwrap();
        for (name, events) in [("kubepods", "populated 0\n"), ("kubepods.slice", "populated 1\nfrozen 0\n")] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("cgroup.events"), events).unwrap();
        }
        let found = find(directory.path(), None);
        assert_eq!(found, [directory.path().join("kubepods.slice"), directory.path().join("kubepods")]);
    }
}
