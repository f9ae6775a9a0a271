//! What cannot be read is not gone: a follower without descriptors keeps what it knows.

use std::process::Command;
use std::time::{Duration, Instant};

use weir::sandbox::{Sandboxes, State};
use weir_tests::proved;
use weir_tests::require::{Need, require};

use crate::bed::{Node, SOON, absent, cookie, ready, set, uid, wait};

/// How long it starves: several looks, the slow poll included.
const STARVED: Duration = Duration::from_secs(3);

/// This process can open no descriptors while this lives, and can again as soon as it is dropped, by a panic too: a test
/// that fails must still clean up.
struct Starved(libc::rlimit);

impl Starved {
    fn new() -> Self {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `before` is valid for writes.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) }, 0);
        set_limit(libc::rlimit { rlim_cur: 0, ..before });
        Self(before)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        set_limit(self.0);
    }
}

fn set_limit(descriptors: libc::rlimit) {
    // SAFETY: the new limit is read from a valid place.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const descriptors) }, 0);
}

fn await_fault(sandboxes: &Sandboxes, uid: &str, over: bool) -> String {
    let until = Instant::now() + SOON;
    loop {
        match sandboxes.fault(uid) {
            Some((why, is_over)) if is_over == over => return why,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_follower_without_descriptors_keeps_what_it_knows() {
    // The limit is the whole process's, so this takes one of its own.
    let name = "a_follower_without_descriptors_keeps_what_it_knows";
    if !require(name, &[Need::Namespaces]) {
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", "faults::starved", "--ignored", "--nocapture", "--test-threads=1"]);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    proved!("{}", said.lines().find(|line| line.contains("starved for")).unwrap().trim());
}

#[test]
#[ignore = "the body of another test, which starts it as a process of its own"]
fn starved() {
    let Some(node) = Node::new("starved", false) else { panic!("the other test has looked") };
    std::fs::create_dir_all(node.v2.join("kubepods")).unwrap();
    let (sandboxes, wakes) = node.follow();
    let [lives, ends, later] = [30, 31, 32].map(uid);
    sandboxes.want(&set(&[lives.clone(), ends.clone(), later.clone()]));
    let netns = ["10.1.1.1", "10.1.1.2", "10.1.1.3"].map(|address| node.netns(Some(address)));
    let run =
        |uid: &str, container: &str, netns| node.run(&format!("kubepods/pod{uid}/{container}"), netns, Duration::ZERO);
    let pause = run(&lives, "pause", Some(&netns[0]));
    let app = run(&lives, "app", Some(&netns[0]));
    let only = run(&ends, "pause", Some(&netns[1]));
    for uid in [&lives, &ends] {
        ready(&sandboxes, uid);
    }
    let late = run(&later, "pause", None);
    wait(&sandboxes, &later, "starting", |state| matches!(state, State::Starting).then_some(()));
    // A wake comes after the state that it tells of, and this is the last of them: one more would be of the starving.
    while wakes.recv_timeout(SOON).unwrap().0 != later {}

    let no_descriptors = Starved::new();
    // The process that stood for the first has ended, and the pod lives; the second has ended.
    pause.stop();
    only.stop();
    for uid in [&lives, &later] {
        let why = await_fault(&sandboxes, uid, false);
        assert!(why.contains("Too many open files"), "{why}");
    }
    let since = Instant::now();
    while since.elapsed() < STARVED {
        let state = sandboxes.state(&lives);
        assert!(matches!(&state, Some(State::Ready(_))), "{state:?}");
        let state = sandboxes.state(&later);
        assert!(matches!(&state, Some(State::Starting)), "{state:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let told: Vec<String> = wakes.try_iter().map(|(uid, _)| uid).filter(|uid| *uid != ends).collect();
    assert!(told.is_empty(), "nothing has changed: {told:?}");
    drop(no_descriptors);
    await_fault(&sandboxes, &lives, true);
    assert_eq!(ready(&sandboxes, &lives).netns.cookie(), cookie(&netns[0]));
    absent(&sandboxes, &ends);
    let again = run(&later, "app", Some(&netns[2]));
    assert_eq!(ready(&sandboxes, &later).netns.cookie(), cookie(&netns[2]));
    proved!("starved for {:?}: a pod whose sandbox's process had ended kept its place", since.elapsed());
    [app, late, again].into_iter().for_each(crate::bed::Container::stop);
    absent(&sandboxes, &lives);
}
