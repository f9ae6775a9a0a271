//! What outlives an agent: another one adopts pins, links and heartbeats, under load too, and the former one may write
//! no more.

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use weir::cgroup;
use weir::datapath::{Datapath, DatapathError, Standing, monotonic_ns, uninstall};
use weir_mesh::plan::KernelPlan;

use crate::bed::{Bed, balance};

#[test]
fn reopening_adopts_everything_and_the_former_agent_may_not_write() {
    let Some(bed) = Bed::new("reopening") else { return };
    let mut first = bed.open();
    assert_eq!((first.attached().fresh, first.attached().adopted), (5, 0));
    let backend: SocketAddr = "10.1.1.1:80".parse().unwrap();
    let wanted = balance(&[(1, &[backend])]);
    assert_eq!(first.apply(&wanted, Instant::now()).unwrap().written, 1);
    first.pod_set(&bed.pod()).unwrap();
    let mut second = bed.open();
    assert_eq!((second.attached().fresh, second.attached().adopted, second.attached().renewed), (0, 5, 0));
    let (cookie, pod) = second.pods().unwrap()[0];
    assert_eq!((cookie, pod.cgroup_id), (bed.netns.cookie(), cgroup::id_of(&bed.config.cgroup).unwrap()));
    assert_eq!((pod.cgroup_level, pod.generation, pod.address4), (1, 1, [127, 0, 0, 99]));
    let report = second.apply(&wanted, Instant::now()).unwrap();
    assert_eq!((report.unchanged, report.written, report.removed), (1, 0, 0));
    assert!(matches!(first.apply(&wanted, Instant::now()), Err(DatapathError::Superseded)));
    assert!(matches!(first.pod_remove(cookie), Err(DatapathError::Superseded)));
    second.pod_set(&bed.pod()).unwrap();
    assert_eq!(second.pods().unwrap()[0].1.generation, 2);
    second.pod_remove(cookie).unwrap();
    second.pod_remove(cookie).unwrap();
    assert!(second.pods().unwrap().is_empty());
    assert_eq!(second.apply(&KernelPlan::default(), Instant::now()).unwrap().removed, 1);
}

#[test]
fn an_agent_succeeds_its_successor_once_that_is_silent_and_never_after_a_removal() {
    let Some(bed) = Bed::new("succession") else { return };
    let standing = |agent: &Datapath| agent.reign().standing(monotonic_ns()).unwrap();
    let backend: SocketAddr = "10.1.1.1:80".parse().unwrap();
    let plans = [1, 2].map(|weight| balance(&[(weight, &[backend]), (1, &[])]));
    let mut first = bed.open();
    first.apply(&plans[0], Instant::now()).unwrap();
    let mut second = Datapath::load(&bed.config).unwrap();
    assert!(
        standing(&first) == Standing::Designated && first.reign().is_in_charge().unwrap(),
        "nobody knows the second one"
    );
    assert!(matches!(second.take_over(), Err(DatapathError::Superseded)), "nor does it come unannounced");
    second.designate().unwrap();
    assert_eq!(standing(&first), Standing::Yields { proven: false });
    first.apply(&plans[1], Instant::now()).unwrap();
    second.beat(monotonic_ns());
    second.take_over().unwrap();
    assert!(matches!(first.apply(&plans[0], Instant::now()), Err(DatapathError::Superseded)));
    assert_eq!(second.apply(&plans[1], Instant::now()).unwrap().unchanged, 1, "what was written last is adopted");
    second.prove().unwrap();
    second.beat(monotonic_ns());
    assert_eq!(standing(&first), Standing::Yields { proven: true });
    assert!(!first.succeed().unwrap());

    assert_eq!(second.apply(&plans[0], Instant::now()).unwrap().written, 1);
    second.beat(monotonic_ns() - 1_100_000_000);
    assert_eq!(standing(&first), Standing::Orphaned);
    first.beat(monotonic_ns());
    assert!(first.succeed().unwrap() && !first.succeed().unwrap());
    first.take_over().unwrap();
    assert!(first.attached().adopted == 5 && first.reign().is_in_charge().unwrap());
    assert_eq!(first.apply(&plans[0], Instant::now()).unwrap().unchanged, 1);
    // It was only slow.
    second.beat(monotonic_ns());
    first.beat(monotonic_ns());
    assert_eq!(standing(&second), Standing::Yields { proven: false });
    assert!(matches!(second.prove(), Err(DatapathError::Superseded)));
    assert!(matches!(second.apply(&plans[1], Instant::now()), Err(DatapathError::Superseded)));

    assert!(uninstall(&bed.config.instance, &bed.config.bpffs, true).unwrap());
    assert_eq!(standing(&first), Standing::Removed);
    assert!(!second.succeed().unwrap() && matches!(first.take_over(), Err(DatapathError::Superseded)));
    // Made anew: those maps are not theirs.
    let third = bed.open();
    third.heartbeat_handle().stop();
    assert_eq!(standing(&first), Standing::Replaced);
    assert!(!first.remove().unwrap() && standing(&third) == Standing::Designated, "it is the third one's");
}

#[test]
fn who_is_in_charge_stays_so_when_it_cannot_be_told() {
    let Some(bed) = Bed::new("no descriptors") else { return };
    let agent = bed.open();
    let reign = agent.reign();
    let (standing, in_charge) = without_descriptors(|| (reign.standing(monotonic_ns()), reign.is_in_charge()));
    assert!(matches!(standing, Ok(Standing::Designated)), "that takes no descriptor: {standing:?}");
    assert!(in_charge.is_err(), "it is not another one's: {in_charge:?}");
    assert!(reign.is_in_charge().unwrap());
}

/// Runs `ask` in a thread that has a table of descriptors of its own, and may open none.
fn without_descriptors<T: Send>(ask: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the thread keeps a copy of all that is open, and shares it with nobody any more.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            // What is free below the limit is taken; the limit is the process's and stays.
            while fs::File::open("/dev/null").map(std::mem::forget).is_ok() {}
            ask()
        });
        thread.join().unwrap()
    })
}

#[test]
fn agents_take_over_under_load_without_a_miss() {
    const ROUNDS: u32 = 10;
    const CONNECTS: u32 = 1_000;
    let Some(mut bed) = Bed::new("takeover") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let mut client = bed.client();
    for _ in 0..ROUNDS {
        client.say(&CONNECTS.to_string());
        datapath.heartbeat_handle().stop();
        datapath = bed.open();
        assert_eq!(datapath.attached().adopted, 5);
        assert_eq!(client.hear(), format!("1={CONNECTS}"));
    }
    assert_eq!(datapath.counters().unwrap()["balance"], u64::from(ROUNDS * CONNECTS));
}

#[test]
fn a_link_whose_cgroup_was_made_anew_is_attached_again() {
    let Some(mut bed) = Bed::new("stale link") else { return };
    drop(bed.open());
    fs::remove_dir(&bed.config.cgroup).unwrap();
    fs::create_dir(&bed.config.cgroup).unwrap();
    let one = bed.server(1);
    let mut datapath = bed.open();
    assert_eq!((datapath.attached().renewed, datapath.attached().adopted), (5, 0));
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    assert_eq!(bed.client().ask("10"), "1=10");
}

#[test]
fn heartbeats_are_not_shared_by_the_living() {
    let Some(bed) = Bed::new("heartbeats") else { return };
    // Opening may take long on a busy machine: the living beat right before each attempt.
    let attempt = |living: &[&Datapath]| {
        for agent in living {
            agent.beat(monotonic_ns());
        }
        Datapath::open(&bed.config)
    };
    let mut agents: Vec<Datapath> = Vec::new();
    for expected in 0..weir_ebpf::MAX_AGENTS {
        let agent = attempt(&agents.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(agent.heartbeat_handle().agent(), expected);
        agents.push(agent);
    }
    assert!(matches!(attempt(&agents.iter().collect::<Vec<_>>()), Err(DatapathError::TooManyAgents)));
    agents[2].heartbeat_handle().stop();
    let third = attempt(&[&agents[0], &agents[1], &agents[3]]).unwrap();
    assert_eq!(third.heartbeat_handle().agent(), 2, "it had said goodbye");
    agents[1].beat(monotonic_ns() - 2_100_000_000);
    let second = attempt(&[&agents[0], &third, &agents[3]]).unwrap();
    assert_eq!(second.heartbeat_handle().agent(), 1, "it was silent");
}

#[test]
fn what_a_former_version_left_is_removed_at_the_next_try_where_the_first_one_fails() {
    let Some(bed) = Bed::new("former") else { return };
    let datapath = bed.open();
    let former = bed.pins().join("v0");
    // No pin, and not empty: it cannot be removed as one.
    let obstacle = former.join("progs/weir_connect4");
    std::fs::create_dir_all(obstacle.join("held")).unwrap();
    datapath.prove().unwrap();
    assert_eq!(datapath.reign().standing(monotonic_ns()).unwrap(), Standing::Designated);
    assert!(datapath.remove_former().is_err() && former.exists());
    std::fs::remove_dir(obstacle.join("held")).unwrap();
    std::fs::remove_dir(&obstacle).unwrap();
    datapath.remove_former().unwrap();
    assert!(!former.exists());
    datapath.remove_former().unwrap();
}
