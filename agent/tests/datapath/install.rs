//! The bpffs around an instance: mounted where there is none, refused where another build's pins are, empty after
//! `uninstall`.

use std::fs;
use std::process::Command;
use std::time::Instant;

use weir::datapath::{Datapath, DatapathError, uninstall};
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
    assert!(uninstall(&bed.config.instance, &bed.config.bpffs).unwrap());
    assert!(!bed.pins().exists());
    let answer = client.ask("1");
    assert!(answer.starts_with('x'), "{answer}");
    assert!(!uninstall(&bed.config.instance, &bed.config.bpffs).unwrap(), "nothing was there");
    assert!(matches!(datapath.apply(&KernelPlan::default(), Instant::now()), Err(DatapathError::Superseded)));
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
    assert!(uninstall(&bed.config.instance, &bed.config.bpffs).unwrap());
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
