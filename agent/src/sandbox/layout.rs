//! The names under `kubepods`: which directory is a pod's and which holds more pods, by the names that the kubelet's
//! two cgroup drivers and the container runtimes give them. Used by `book` and `process`.
//!
//! | | cgroupfs | systemd |
//! |---|---|---|
//! | guaranteed | `kubepods/podUID` | `kubepods.slice/kubepods-podU_ID.slice` |
//! | others | `kubepods/burstable/podUID` | `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_ID.slice` |
//! | container | `ID`, `crio-ID` | `cri-containerd-ID.scope`, `crio-ID.scope` |
//!
//! kind puts `kubelet-` before `kubepods` in each systemd name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The classes that have a directory of their own.
const CLASSES: [&str; 2] = ["besteffort", "burstable"];

/// `metadata.uid` of the pod whose directory has this name. A systemd name has underscores for the dashes of the UID.
pub(super) fn pod_uid(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        None => name.strip_prefix("pod")?.to_owned(),
        Some(slice) => {
            let rest = after_kubepods(slice)?;
            let rest = CLASSES.iter().find_map(|class| rest.strip_prefix(class)?.strip_prefix('-')).unwrap_or(rest);
            rest.strip_prefix("pod")?.replace('_', "-")
        }
    };
    let plain = uid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (plain && !uid.is_empty()).then_some(uid)
}

/// Whether the directory of this name holds the pods of a class.
pub(super) fn is_class(name: &str) -> bool {
    let class = match name.strip_suffix(".slice") {
        None => Some(name),
        Some(slice) => after_kubepods(slice),
    };
    class.is_some_and(|class| CLASSES.contains(&class))
}

/// Whether the cgroup of this name is the runtime's monitor of a container: it is below the pod, and not in the pod's
/// network namespace.
pub(super) fn is_monitor(name: &str) -> bool {
    name.starts_with("crio-conmon-")
}

/// Whether a path of `/proc/PID/cgroup` is that of the pod or of a cgroup below it.
pub(super) fn is_in_pod(path: &str, uid: &str) -> bool {
    path.split('/').any(|name| pod_uid(name).is_some_and(|found| found == uid))
}

/// What directories of pods there are: the `kubepods` itself and those of its classes.
pub(super) fn class_directories(kubepods: &Path) -> Vec<PathBuf> {
    let classes = directories(kubepods).into_iter().filter(|(_, name)| is_class(name)).map(|(path, _)| path);
    std::iter::once(kubepods.to_owned()).chain(classes).collect()
}

/// The directories of pods in one of [`class_directories`], with their UIDs.
pub(super) fn pods_in(class: &Path) -> Vec<(String, PathBuf)> {
    directories(class).into_iter().filter_map(|(path, name)| Some((pod_uid(&name)?, path))).collect()
}

/// The directories in a directory, with their names as text; none when it is gone, or cannot be read now.
pub(super) fn directories(path: &Path) -> Vec<(PathBuf, String)> {
    read_directories(path).unwrap_or_default()
}

/// The same, for who must not take "cannot be read" for "none".
///
/// # Errors
/// When it is there and cannot be read.
pub(super) fn read_directories(path: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let Some(entries) = unless_gone(fs::read_dir(path))? else { return Ok(found) };
    for entry in entries {
        let Some(entry) = unless_gone(entry)? else { continue };
        if unless_gone(entry.file_type())?.is_some_and(|kind| kind.is_dir()) {
            // A container chooses the names of its own cgroups, which may be no UTF-8.
            found.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(found)
}

/// `None` for what is not there (any more): a file, a cgroup that was removed while its file is open, a process.
///
/// # Errors
/// All others: no descriptors or memory left, not permitted. They say nothing about what is there.
pub(super) fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// See [`unless_gone`].
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV))
}

/// `kubepods-burstable` gives `burstable`, `kubelet-kubepods-podX` gives `podX`.
fn after_kubepods(slice: &str) -> Option<&str> {
    let (before, after) = slice.split_once("kubepods-")?;
    (before.is_empty() || before.ends_with('-')).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "d4daf794-e023-45e0-b7f0-82ef2939b9fb";
    const SYSTEMD: &str = "podd4daf794_e023_45e0_b7f0_82ef2939b9fb.slice";

    #[test]
    fn a_pods_directory_tells_its_uid_with_either_driver() {
        for name in [
            format!("pod{UID}"),
            format!("kubepods-{SYSTEMD}"),
            format!("kubepods-burstable-{SYSTEMD}"),
            format!("kubepods-besteffort-{SYSTEMD}"),
            format!("kubelet-kubepods-{SYSTEMD}"),
            format!("kubelet-kubepods-besteffort-{SYSTEMD}"),
        ] {
            assert_eq!(pod_uid(&name).as_deref(), Some(UID), "{name}");
        }
        let hash = "podf3c29a5b7e1d48c0a9be6d2f01c3a4b5";
        assert_eq!(pod_uid(hash).as_deref(), hash.strip_prefix("pod"), "a static pod");
        for name in [
            "besteffort",
            "pod",
            "podman",
            "kubepods-burstable.slice",
            "kubepods-pod.slice",
            "cri-containerd-x.scope",
            "user-podx.slice",
            "notkubepods-podx.slice",
            "pod../x",
        ] {
            assert_ne!(pod_uid(name).as_deref(), Some(UID), "{name}");
            assert!(pod_uid(name).is_none() || name == "podman", "{name}");
        }
    }

    #[test]
    fn classes_are_known_with_either_driver() {
        for name in ["besteffort", "burstable", "kubepods-besteffort.slice", "kubelet-kubepods-burstable.slice"] {
            assert!(is_class(name), "{name}");
        }
        for name in ["kubepods", "besteffort.slice", "podx", "kubepods-burstable-podx.slice", "guaranteed"] {
            assert!(!is_class(name), "{name}");
        }
    }

    #[test]
    fn a_process_is_in_a_pod_by_any_prefix_and_runtime() {
        for path in [
            format!("/kubepods/burstable/pod{UID}/0f3c"),
            format!("/../../pod{UID}/0f3c"),
            format!("/node1/kubepods/pod{UID}/crio-0f3c"),
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{SYSTEMD}/crio-0f3c.scope/container"),
            format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-{SYSTEMD}/cri-containerd-0f3c.scope"),
        ] {
            assert!(is_in_pod(&path, UID), "{path}");
            assert!(!is_in_pod(&path, "d4daf794"), "{path}");
        }
        assert!(!is_in_pod(&format!("/system.slice/pod{UID}x"), UID));
        assert!(is_monitor("crio-conmon-0f3c.scope") && !is_monitor("crio-0f3c.scope"));
    }

    #[test]
    fn pods_are_listed_in_every_layout() {
        for (kubepods, pods) in [
            ("kubepods", [format!("burstable/pod{UID}"), "besteffort/poda".into(), "podb".into()]),
            (
                "kubepods.slice",
                [
                    format!("kubepods-burstable.slice/kubepods-burstable-{SYSTEMD}"),
                    "kubepods-besteffort.slice/kubepods-besteffort-poda.slice".into(),
                    "kubepods-podb.slice".into(),
                ],
            ),
            (
                "kubelet.slice/kubelet-kubepods.slice",
                [
                    format!("kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-{SYSTEMD}"),
                    "kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-poda.slice".into(),
                    "kubelet-kubepods-podb.slice".into(),
                ],
            ),
        ] {
            let tree = tempfile::tempdir().unwrap();
            let root = tree.path().join(kubepods);
            for pod in &pods {
                fs::create_dir_all(root.join(pod).join("cri-containerd-x.scope")).unwrap();
            }
            let mut found: Vec<_> = class_directories(&root).iter().flat_map(|class| pods_in(class)).collect();
            found.sort();
            let expected = [
                ("a".to_owned(), root.join(&pods[1])),
                ("b".to_owned(), root.join(&pods[2])),
                (UID.to_owned(), root.join(&pods[0])),
            ];
            assert_eq!(found, expected, "{kubepods}");
        }
    }
}
