//! The first list: everything is read before anything is given, in a stream or in pages, and it is what files say.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::store::Store;
use weir_tests::ApiServer;
use weir_tests::apiserver::{Fault, Population};

use crate::bed::{Bed, NODE, RULES, SHOP, SOON, furnish, shop};

#[test]
fn files_and_the_api_server_compile_to_the_same_plan() -> Result<()> {
    let mut files = Store::new();
    for (number, text) in [SHOP, RULES].iter().enumerate() {
        files.set_file(&format!("{number}.yaml"), text);
    }
    let options = CompileOptions { node: Some(NODE.into()), ..CompileOptions::default() };
    let from_files = compile(&files.snapshot(), &options);
    let api = shop()?;
    let bed = Bed::start(&api)?;
    let mut from_server = bed.compile();
    // A file gives pods no uid.
    for pod in from_server.plan.pods.values_mut() {
        ensure!(!pod.uid.is_empty(), "{pod:?}");
        pod.uid = "".into();
    }
    assert_eq!(from_files.plan.services.len(), 1);
    assert_eq!(from_files.plan.pods.len(), 1);
    assert_eq!(format!("{:#?}", from_server.plan), format!("{:#?}", from_files.plan));
    assert_eq!(bed.findings(), [""; 0]);
    Ok(())
}

#[test]
fn nothing_is_complete_before_the_last_kind_has_been_read() -> Result<()> {
    let api = shop()?;
    api.faults().inject(Fault::answer(503).resource("endpointslices.discovery.k8s.io"))?;
    let mut bed = Bed::spawn(&api)?;
    bed.until("the rules have been read", |bed| bed.weight() == Some(90))?;
    bed.during(Duration::from_secs(1));
    assert!(!bed.is_complete());
    let status = bed.status();
    assert!(status.problems.iter().any(|p| p == "not read yet: endpointslices"), "{status:?}");
    assert!(status.away_since.is_some(), "{status:?}");
    api.faults().clear()?;
    bed.until_complete()?;
    bed.until("it is well", |bed| bed.status().away_since.is_none())?;
    assert_eq!(bed.snapshot().endpoint_slices.len(), 1);
    Ok(())
}

#[test]
fn an_api_server_that_is_not_there_yet_is_asked_until_it_is() -> Result<()> {
    let api = shop()?;
    api.stop()?;
    let mut bed = Bed::spawn(&api)?;
    bed.during(Duration::from_secs(2));
    assert!(!bed.is_complete());
    let status = bed.status();
    assert!(status.away_since.is_some() && status.problems[0].contains("refused"), "{status:?}");
    api.resume()?;
    bed.until_complete()?;
    assert_eq!(bed.weight(), Some(90));
    Ok(())
}

/// While it starts it names no custom kinds, and whoever believes that takes their rules away.
#[test]
fn an_api_server_that_is_not_ready_is_not_believed() -> Result<()> {
    let api = shop()?;
    api.faults().inject(Fault::answer(500).resource("/readyz"))?;
    let mut bed = Bed::spawn(&api)?;
    bed.during(Duration::from_secs(2));
    assert!(!bed.is_complete());
    let asked = api.counters()?.recent;
    assert!(!asked.iter().any(|line| line.contains("/apis")), "nothing else is asked for: {asked:?}");
    api.faults().clear()?;
    bed.until_complete()?;
    assert_eq!(bed.weight(), Some(90));
    Ok(())
}

#[test]
fn a_server_that_cannot_stream_a_list_gives_it_in_pages() -> Result<()> {
    let api = ApiServer::start()?;
    furnish(&api)?;
    let many = Population { pods: 1200, ..Population::default() };
    api.populate(&many)?;
    let streamed = Bed::start(&api)?;
    assert_eq!(api.counters()?.requests("list", ""), 0, "everything came in streams");
    // One refusal is enough to know.
    api.faults().inject(Fault::answer(422).verb("watch").resource("pods").times(1))?;
    let paged = Bed::start(&api)?;
    let counters = api.counters()?;
    assert!(counters.requests("list", "pods") >= 3, "{:?}", counters.recent);
    assert_eq!(streamed.snapshot().pods.len(), 1202);
    assert_eq!(format!("{:?}", paged.compile().plan), format!("{:?}", streamed.compile().plan));
    Ok(())
}

#[test]
fn it_ends_at_once_in_whatever_state() -> Result<()> {
    let api = shop()?;
    let bed = Bed::start(&api)?;
    assert!(bed.stop()? < Duration::from_secs(1));
    assert_eq!(
        weir_tests::eventually("no watch is left", SOON, || Ok((api.counters()?.watches("") == 0).then_some(())))?.0,
        ()
    );
    api.stop()?;
    let away = Bed::spawn(&api)?;
    assert!(away.stop()? < Duration::from_secs(1));
    Ok(())
}
