//! Pods without a process of their sandbox's own, as CRI-O makes them: a mount holds the namespace, the first process in
//! it is the first container's, and beside it the runtime's monitor is in the pod's cgroup and in the node's namespace.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir::sandbox::State;

use crate::bed::{Node, SOON, absent, cookie, ready, set, uid, wait};

/// A process that is called `name`, in a cgroup and in the node's namespace.
fn monitor(cgroup: &Path, name: &str) -> Child {
    fs::create_dir_all(cgroup).unwrap();
    let tools = tempfile::tempdir().unwrap();
    let program = tools.path().join(name);
    fs::copy("/bin/sleep", &program).unwrap();
    let mut child = Command::new(&program).arg("100").stdin(Stdio::null()).process_group(0).spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pod_is_found_by_its_first_container_and_never_by_its_monitor() {
    let test = "a_pod_is_found_by_its_first_container_and_never_by_its_monitor";
    let Some(node) = Node::new(test, false) else { return };
    let uid = uid(40);
    let slice =
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
    let pod = node.v2.join(&slice);
    fs::create_dir_all(&pod).unwrap();
    let (sandboxes, wakes) = node.follow();
    sandboxes.want(&set(std::slice::from_ref(&uid)));
    // The namespace is there with its address, and nobody is in it.
    let netns = node.netns(Some("10.1.1.1"));
    assert!(matches!(sandboxes.state(&uid), Some(State::Absent { .. })));
    // In a scope of its own, in the pod's cgroup itself, and under both names.
    let monitors = [
        monitor(&pod.join("crio-conmon-0f3c.scope"), "conmon"),
        monitor(&pod, "conmon"),
        monitor(&pod.join("crio-0f3c.scope"), "conmonrs"),
    ];
    std::thread::sleep(Duration::from_millis(200));
    let state = sandboxes.state(&uid);
    assert!(matches!(state, Some(State::Absent { .. })), "a monitor is no process of the pod: {state:?}");
    while wakes.try_recv().is_ok() {}
    for round in 0..2 {
        let container = node.run(&format!("{slice}/crio-{round}.scope/container"), Some(&netns), Duration::ZERO);
        let found = ready(&sandboxes, &uid);
        assert_eq!((found.netns.cookie(), found.cgroup.as_deref()), (cookie(&netns), Some(pod.as_path())));
        assert_eq!(wakes.recv_timeout(SOON).unwrap().0, uid);
        container.stop();
        // It is started again by the kubelet, in the same namespace.
        absent(&sandboxes, &uid);
        while wakes.try_recv().is_ok() {}
    }
    // An application of the pod may be called so too: in the pod's namespace it is the pod's.
    let mut named = Command::new("nsenter");
    named.arg(format!("--net={}", netns.path().display())).args([
        "bash",
        "-c",
        "echo 0 > $0; exec -a conmon sleep 100",
    ]);
    fs::create_dir_all(pod.join("crio-9.scope")).unwrap();
    let named = named.arg(pod.join("crio-9.scope/cgroup.procs")).stdin(Stdio::null()).spawn().unwrap();
    assert_eq!(ready(&sandboxes, &uid).netns.cookie(), cookie(&netns));
    end(named);
    wait(&sandboxes, &uid, "absent", |state| matches!(state, State::Absent { .. }).then_some(()));
    monitors.into_iter().for_each(end);
}
