//! Changes: soon heard, in order, the last one always in force, none lost to a cut.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_tests::apiserver::Bookmarks;

use crate::bed::{Bed, shop, weights};

/// From the server's acceptance to the compiled plan, of single changes.
const PROMPT: Duration = Duration::from_millis(50);
/// Under a hundred changes a second.
const BUSY: Duration = Duration::from_millis(500);

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * share) as usize]
}

#[test]
fn a_change_is_compiled_at_once() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    let mut times = Vec::new();
    for n in 0..100 {
        let weight = 1 + n % 90;
        api.apply(&weights(weight))?;
        let begun = Instant::now();
        bed.until("the weight is there", |bed| bed.weight() == Some(weight))?;
        assert_eq!(bed.compile().plan.services.len(), 1);
        times.push(begun.elapsed());
    }
    let (median, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    weir_tests::proved!("heard and compiled in {median:?} (median), {p99:?} (p99)");
    ensure!(p99 < PROMPT, "p99 {p99:?}");
    Ok(())
}

#[test]
fn a_hundred_changes_a_second_are_never_out_of_order_and_the_last_is_in_force() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    let (count, every) = (weir_tests::length(1000, 6000_u32), Duration::from_millis(10));
    // Weights tell the number of a change, in two digits each of two objects would wrap: so an annotation does.
    let numbered = |n: u32| {
        weights(50)
            .replace("name: web, namespace", &format!("annotations: {{weir.mesh/n: \"{n}\"}}, name: web, namespace"))
    };
    let seen = |bed: &Bed| -> Option<u32> {
        let vs = bed.snapshot().virtual_services.get(&("shop".into(), "web".into()))?;
        vs.meta.annotation("weir.mesh/n")?.parse().ok()
    };
    let (tell, told) = std::sync::mpsc::channel();
    let api = std::sync::Arc::new(api);
    let writer = std::thread::spawn({
        let api = std::sync::Arc::clone(&api);
        move || -> Result<()> {
            let begun = Instant::now();
            for n in 1..=count {
                std::thread::sleep((begun + every * n).saturating_duration_since(Instant::now()));
                api.apply(&numbered(n))?;
                tell.send(Instant::now())?;
            }
            Ok(())
        }
    });
    let (mut times, mut last, mut written) = (Vec::new(), 0, Vec::new());
    while last < count {
        bed.take(Duration::from_millis(500));
        let now = seen(&bed).unwrap_or(0);
        ensure!(now >= last, "{now} after {last}");
        assert_eq!(bed.compile().plan.services.len(), 1);
        if now > last {
            while written.len() < now as usize {
                // The number is sent just after the change was accepted.
                written.push(told.recv_timeout(Duration::from_secs(5))?);
            }
            // The oldest of those that this one replaced has waited longest.
            times.push(written[last as usize].elapsed());
            last = now;
        }
    }
    writer.join().expect("the writer does not panic")?;
    let (median, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    weir_tests::proved!("{} compilations; in force after {median:?} (median), {p99:?} (p99)", times.len());
    ensure!(p99 < BUSY, "p99 {p99:?}");
    assert_eq!(bed.lists("VirtualService"), 1);
    Ok(())
}

#[test]
fn objects_that_go_and_come_back_are_as_they_came_back() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    for n in 0..20 {
        api.delete("virtualservices.networking.istio.io", "shop", "web")?;
        if n % 2 == 0 {
            bed.until("it is gone", |bed| bed.weight().is_none())?;
        }
        api.apply(&weights(10 + n))?;
        bed.until("it is back", |bed| bed.weight() == Some(10 + n))?;
    }
    api.delete("pods", "shop", "web-v2")?;
    bed.until("the pod is gone", |bed| bed.snapshot().pods.len() == 1)?;
    Ok(())
}

#[test]
fn nothing_is_lost_when_watches_are_cut_all_the_time() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    for n in 0..10_u32 {
        if n % 2 == 0 {
            api.faults().cut_watches()?;
        } else {
            api.faults().break_watches()?;
        }
        api.apply(&weights(20 + n))?;
        bed.until("the change is heard", |bed| bed.weight() == Some(20 + n))?;
    }
    assert_eq!(bed.lists("VirtualService"), 1, "a cut is no reason to list again");
    assert!(bed.status().away_since.is_none());
    Ok(())
}

#[test]
fn bookmarks_that_come_late_twice_or_never_lead_nowhere_else() -> Result<()> {
    for (number, bookmarks) in (0..).zip([Bookmarks::Late, Bookmarks::Twice, Bookmarks::Never]) {
        let api = weir_tests::ApiServer::builder().bookmark_every(Duration::from_millis(20)).start()?;
        crate::bed::furnish(&api)?;
        api.faults().bookmarks(bookmarks)?;
        let mut bed = Bed::start(&api)?;
        for n in 0..10_u32 {
            let weight = 10 * (number + 1) + n;
            api.apply(&weights(weight))?;
            bed.until("the change is heard", |bed| bed.weight() == Some(weight))?;
            api.faults().break_watches()?;
            bed.during(Duration::from_millis(30));
            assert_eq!(bed.weight(), Some(weight), "{bookmarks:?} leads back");
        }
        assert_eq!(bed.lists("VirtualService"), 1);
    }
    Ok(())
}
