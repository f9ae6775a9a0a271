//! Objects that make no sense: named, left out, and nothing else suffers.

use std::time::Duration;

use anyhow::Result;
use weir_tests::apiserver::{Fault, Garbage};

use crate::bed::{Bed, shop, weights};

const ROUTES: &str = "virtualservices.networking.istio.io";

#[test]
fn a_spoiled_version_leaves_the_last_good_one() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    api.faults().inject(Fault::garbage(Garbage::WrongTypes).resource(ROUTES))?;
    api.apply(&weights(20))?;
    bed.until("it is told", |bed| !bed.findings().is_empty())?;
    let found = bed.findings();
    assert!(found[0].starts_with("Error [IST0106] (VirtualService shop/web): "), "{found:?}");
    assert!(found[0].ends_with("its last good version stays in force"), "{found:?}");
    assert_eq!(bed.weight(), Some(90));
    api.faults().clear()?;
    api.apply(&weights(21))?;
    bed.until("it is mended", |bed| bed.weight() == Some(21) && bed.findings().is_empty())?;
    Ok(())
}

#[test]
fn a_spoiled_object_in_a_list_spoils_no_other() -> Result<()> {
    for garbage in [Garbage::WrongTypes, Garbage::Nameless, Garbage::Huge] {
        for pages in [false, true] {
            let api = shop()?;
            if pages {
                api.faults().inject(Fault::answer(422).verb("watch").resource("pods").times(1))?;
            }
            // The first of the two pods.
            api.faults().inject(Fault::garbage(garbage).times(1).resource("pods"))?;
            let bed = Bed::start(&api)?;
            let (pods, found) = (bed.snapshot().pods.len(), bed.findings());
            match garbage {
                Garbage::Huge => assert_eq!((pods, found.len()), (2, 0), "{found:?}"),
                Garbage::WrongTypes => {
                    assert_eq!((pods, found.len()), (1, 1), "{found:?}");
                    assert!(
                        found[0].contains("(Pod shop/web-v") && found[0].ends_with("it is not in force"),
                        "{found:?}"
                    );
                }
                _ => {
                    assert_eq!((pods, found.len()), (1, 1), "{found:?}");
                    assert!(found[0].contains("something that was served as a Pod"), "{found:?}");
                }
            }
            assert_eq!(bed.weight(), Some(90));
        }
    }
    Ok(())
}

#[test]
fn a_text_that_breaks_off_is_asked_for_again() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    api.faults().inject(Fault::garbage(Garbage::Truncated).resource(ROUTES).times(2))?;
    api.apply(&weights(20))?;
    bed.until("it is heard", |bed| bed.weight() == Some(20))?;
    bed.during(Duration::from_millis(100));
    assert!(bed.findings().is_empty() && bed.status().problems.is_empty(), "{:?}", bed.status());
    Ok(())
}
