//! Fields that newer ones replace, and that old manifests have still: they are in force where the newer one is not given.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{HttpLoad, eventually, require};

use super::stage::{Stage, V1, http};

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl")];

#[test]
fn percentages_and_origins_by_their_older_names_are_in_force() -> Result<()> {
    if !require("percentages_and_origins_by_their_older_names_are_in_force", NEEDS) {
        return Ok(());
    }
    let delay = |share: &str| format!("fault: {{delay: {{fixedDelay: 20ms, {share}}}}}");
    let to = |path: &str, more: &str| format!("{{match: [{{uri: {{prefix: {path}}}}}], {more}, {V1}}}");
    let mirror = "mirror: {host: service-b, subset: v2}";
    let rules = [
        to("/all", &delay("percent: 100")),
        to("/quarter", &delay("percent: 25")),
        to("/newer", &delay("percent: 100, percentage: {value: 0}")),
        to("/m30", &format!("{mirror}, mirrorPercent: 30")),
        to("/m60", &format!("{mirror}, mirror_percent: 60")),
        to("/m0", &format!("{mirror}, mirrorPercent: 100, mirrorPercentage: {{value: 0}}")),
        to("/list", "corsPolicy: {allowOrigin: ['https://shop.example'], allowMethods: [GET]}"),
        to("/any", "corsPolicy: {allowOrigin: ['*'], allowMethods: [GET]}"),
        format!("{{{V1}}}"),
    ];
    let stage = Stage::new(&http(&rules.join(", ")))?;
    let load = |path: &str, requests: u64| -> Result<()> {
        let load = HttpLoad::new(stage.scene.http.at(80)).host("service-b").path(path).connections(8);
        let report = load.requests(requests).run(stage.client())?;
        ensure!(report.failed == 0 && report.version("v1") == requests, "{path}: {report:?}");
        Ok(())
    };
    let delayed = |path: &str, requests: u64| -> Result<u64> {
        let what = format!("\"GET {path} HTTP/1.1\" 200 ");
        let look = || {
            let log = stage.agent.access_log();
            let lines: Vec<&str> =
                log.lines().filter_map(|line| line.split_once(&what)).map(|(_, rest)| rest).collect();
            let delayed = lines.iter().filter(|rest| rest.starts_with("DI ")).count() as u64;
            Ok((lines.len() as u64 == requests).then_some(delayed))
        };
        Ok(eventually(&format!("{path} is logged"), Duration::from_secs(10), look)?.0)
    };
    // Six standard deviations for each share.
    for (path, requests, least, most) in [("/all", 100, 100, 100), ("/quarter", 800, 126, 274), ("/newer", 200, 0, 0)] {
        load(path, requests)?;
        let seen = delayed(path, requests)?;
        ensure!((least..=most).contains(&seen), "{path}: {seen} of {requests} were delayed");
    }
    for (path, least, most) in [("/m30", 228, 372), ("/m60", 523, 677), ("/m0", 0, 0)] {
        let before = stage.served("b-v2-0")?;
        load(path, 1000)?;
        // Copies go out beside the requests, and may arrive after them.
        std::thread::sleep(Duration::from_secs(1));
        let seen = stage.served("b-v2-0")? - before;
        ensure!((least..=most).contains(&seen), "{path}: {seen} copies of 1,000");
    }
    for (path, origin, allowed) in [
        ("/list", "https://shop.example", true),
        ("/list", "https://shop.example.evil.example", false),
        ("/list", "https://evil.example", false),
        ("/any", "https://evil.example", true),
        ("/", "https://shop.example", false),
    ] {
        let page = stage.curl(path, &["-H", &format!("Origin: {origin}")])?;
        let told = page.header("access-control-allow-origin");
        ensure!(page.status == 200 && (told == Some(origin)) == allowed, "{path} {origin}: {page:?}");
    }
    Ok(())
}
