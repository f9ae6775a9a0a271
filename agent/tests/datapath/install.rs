//! The bpffs around an instance: mounted where there is none, refused where another build's pins are, empty after
//! `uninstall`.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Instant;

use weir::datapath::{Datapath, DatapathError, Standing, monotonic_ns, uninstall};
use weir_mesh::plan::KernelPlan;

use crate::bed::{Bed, balance};

#[test]
fn uninstall_detaches_and_leaves_no_pin() {
    let Some(mut bed) = Bed::new("uninstall") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let mut client = bed.client();
    assert_eq!(client.ask("1"), "1=1");
    assert!(bed.pins().join("maps/weir_services").exists(), "the link shows the active maps");
    assert!(uninstall(&bed.config.instance, &bed.config.bpffs, true).unwrap());
    assert!(!bed.pins().exists());
    let answer = client.ask("1");
    assert!(answer.starts_with('x'), "{answer}");
    assert!(!uninstall(&bed.config.instance, &bed.config.bpffs, true).unwrap(), "nothing was there");
    assert!(matches!(datapath.apply(&KernelPlan::default(), Instant::now()), Err(DatapathError::Superseded)));
}

#[test]
fn nothing_is_removed_under_a_live_agent_unless_that_is_meant() {
    let Some(bed) = Bed::new("in use") else { return };
    let remove = |force| uninstall(&bed.config.instance, &bed.config.bpffs, force);
    let datapath = bed.open();
    datapath.beat(monotonic_ns());
    let refused = remove(false).unwrap_err();
    assert!(matches!(refused, DatapathError::InUse(_)) && refused.to_string().contains("--force"), "{refused}");
    assert!(datapath.reign().is_in_charge().unwrap());
    datapath.heartbeat_handle().stop();
    assert!(remove(false).unwrap(), "it has said goodbye");
    let second = bed.open();
    second.beat(monotonic_ns());
    assert!(remove(true).unwrap());
    assert_eq!(second.reign().standing(monotonic_ns()).unwrap(), Standing::Removed);
}

#[test]
fn an_agent_that_leaves_removes_nothing_under_one_that_has_loaded() {
    let Some(bed) = Bed::new("leaving") else { return };
    let first = bed.open();
    first.heartbeat_handle().stop();
    let second = Datapath::load(&bed.config).unwrap();
    assert!(!first.remove().unwrap(), "it is about to begin");
    second.designate().unwrap();
    assert!(!first.remove().unwrap());
    second.heartbeat_handle().stop();
    assert!(!first.remove().unwrap(), "it is the second one's, even if that is silent");
    assert!(first.succeed().unwrap() && first.remove().unwrap());
    assert!(!bed.pins().exists());
    assert!(matches!(second.designate(), Err(DatapathError::Removed)));

    // Made anew meanwhile: what was loaded before has other maps.
    let late = Datapath::load(&bed.config).unwrap();
    assert!(uninstall(&bed.config.instance, &bed.config.bpffs, true).unwrap());
    let third = bed.open();
    assert!(matches!(late.designate(), Err(DatapathError::Removed)));
    assert_eq!(third.reign().standing(monotonic_ns()).unwrap(), Standing::Designated);
}

#[test]
fn agents_that_come_while_others_leave_find_everything_or_an_end() {
    const ROUNDS: usize = 30;
    let Some(bed) = Bed::new("coming and going") else { return };
    let mut removed = 0;
    for _ in 0..ROUNDS {
        let leaver = bed.open();
        leaver.heartbeat_handle().stop();
        let (came, went) = thread::scope(|scope| {
            let comes = scope.spawn(|| Datapath::open(&bed.config));
            let goes = scope.spawn(move || leaver.remove());
            (comes.join().unwrap(), goes.join().unwrap())
        });
        removed += usize::from(went.unwrap());
        let came = came.unwrap();
        assert!(came.reign().is_in_charge().unwrap(), "it has what it has loaded");
        came.heartbeat_handle().stop();
    }
    println!("{removed} of {ROUNDS} were removed before the next one came");
}

#[test]
fn a_bpffs_is_mounted_once_where_there_is_none() {
    let Some(mut bed) = Bed::new("mount") else { return };
    let directory = tempfile::tempdir().unwrap();
    bed.config.bpffs = directory.path().to_owned();
    let mounts = || {
        let text = fs::read_to_string("/proc/self/mounts").unwrap();
        text.lines().filter(|line| line.split(' ').nth(1) == directory.path().to_str()).count()
    };
    drop(bed.open());
    assert_eq!(bed.open().attached().adopted, 5);
    assert_eq!(mounts(), 1);
    assert!(uninstall(&bed.config.instance, &bed.config.bpffs, true).unwrap());
    assert!(Command::new("umount").arg(directory.path()).status().unwrap().success());
    assert_eq!(mounts(), 0);
}

#[test]
fn pins_of_another_build_are_refused_by_name() {
    let Some(bed) = Bed::new("abi") else { return };
    let maps = bed.pins().join(format!("v{}/maps", weir_ebpf::ABI_VERSION));
    fs::create_dir_all(&maps).unwrap();
    let shape = aya_obj::Map::new_from_params(1, 8, 4, 16, 1);
    aya::maps::MapData::create(shape, "weir_pods", None).unwrap().pin(maps.join("weir_pods")).unwrap();
    let error = Datapath::open(&bed.config).unwrap_err();
    assert!(matches!(error, DatapathError::AbiMismatch { map: "weir_pods", .. }), "{error}");
    assert!(error.to_string().contains("value size 4 instead of") && error.to_string().contains("weir uninstall"));
}
