//! One agent of all: who creates absent CRDs and writes findings back. Called by `app`.
//!
//! Nothing on the way of traffic waits for it, so it is tuned for many nodes and not for a quick succession: who does
//! not lead looks at the Lease about once in a minute and a half, which is some 50 requests a second at 5,000 nodes.
//! Expiry is measured by our own clock, from when we saw the Lease change, so the nodes' clocks need not agree.

use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;

/// The Lease that is competed for.
pub const LEASE: &str = "weir-leader";
/// A holder that was silent for so long has lost it.
const DURATION: Duration = Duration::from_mins(1);
/// A third of the duration: two renewals may be lost.
const RENEW: Duration = Duration::from_secs(20);
/// A holder that could not renew for so long stops leading, before anybody else may begin.
const STEP_DOWN: Duration = Duration::from_secs(50);
/// After an answer that helps nobody.
const RETRY: Duration = Duration::from_secs(5);
/// For one request: an answer later than this comes too late for a renewal.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What to do with the Lease as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is none: create it.
    Create,
    /// It is ours, free or expired: write it.
    Write,
    /// Somebody holds it: look again after this time.
    Wait(Duration),
}

/// What one candidate has seen.
#[derive(Debug)]
struct Candidate {
    me: String,
    /// The version of the Lease that was seen last, and since when it has been that.
    seen: Option<(String, Instant)>,
    /// 0 to [`DURATION`], so that nodes do not ask at the same moment.
    jitter: Duration,
}

impl Candidate {
    fn new(me: &str) -> Self {
        // The name's hash (FNV, its bits stirred once more, since names differ in their last letters only) spreads nodes
        // as well as a random number would.
        let hash = me.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = hash ^ (hash >> 33);
        let jitter = DURATION.mul_f64((hash >> 11) as f64 / (1_u64 << 53) as f64);
        Self { me: me.to_owned(), seen: None, jitter }
    }

    fn step(&mut self, lease: Option<&Lease>, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == self.me {
            return Step::Write;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        let age = now.saturating_duration_since(since);
        // Its own word counts, where it is longer than ours: another version of weir may be patient.
        let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or_default();
        let duration = DURATION.max(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
        duration
            .checked_sub(age)
            .filter(|left| !left.is_zero())
            .map_or(Step::Write, |left| Step::Wait(left + self.jitter))
    }
}

/// The Lease with `holder` as its holder. With the version that was read, so that a write of somebody else in between
/// makes this one fail.
fn written(lease: Option<&Lease>, holder: &str, now: Timestamp) -> Lease {
    let old = lease.and_then(|l| l.spec.clone()).unwrap_or_default();
    let stays = old.holder_identity.as_deref() == Some(holder);
    let spec = LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: if stays { old.acquire_time } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(old.lease_transitions.unwrap_or_default() + i32::from(!stays && lease.is_some())),
        ..LeaseSpec::default()
    };
    let named = || ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() };
    Lease { metadata: lease.map_or_else(named, |l| l.metadata.clone()), spec: Some(spec) }
}

/// Competes in `namespace` under the name `me` until `stop` is ready, and tells by `leading`. Frees the Lease at the end when it is
/// ours, so that the next one need not wait for its expiry.
pub async fn campaign(
    client: Client,
    namespace: &str,
    me: &str,
    leading: &watch::Sender<bool>,
    stop: impl Future<Output = ()>,
) {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let mut candidate = Candidate::new(me);
    let mut renewed: Option<Instant> = None;
    tokio::pin!(stop);
    loop {
        let wait = tokio::select! {
            () = &mut stop => break,
            result = tokio::time::timeout(TIMEOUT, round(&leases, &mut candidate)) => match result {
                Ok(Ok(Round::Leading)) => {
                    renewed = Some(Instant::now());
                    tell(leading, true, me);
                    RENEW
                }
                Ok(Ok(Round::Following(wait))) => {
                    renewed = None;
                    tell(leading, false, me);
                    wait
                }
                Ok(Err(error)) => retry(&error.to_string(), renewed.map(|at| at.elapsed()), leading, me),
                Err(_) => retry("no answer in time", renewed.map(|at| at.elapsed()), leading, me),
            },
        };
        tokio::select! {
            () = &mut stop => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    if leading.send_replace(false) {
        // Without an answer it expires by itself.
        let _freed = tokio::time::timeout(TIMEOUT, free(&leases, &candidate)).await;
    }
}

/// What one look at the Lease led to.
enum Round {
    Leading,
    Following(Duration),
}

async fn round(leases: &Api<Lease>, candidate: &mut Candidate) -> Result<Round, Error> {
    let lease = leases.get_opt(LEASE).await?;
    let written = written(lease.as_ref(), &candidate.me, Timestamp::now());
    let result = match candidate.step(lease.as_ref(), Instant::now()) {
        Step::Wait(wait) => return Ok(Round::Following(wait)),
        Step::Create => leases.create(&PostParams::default(), &written).await,
        Step::Write => leases.replace(LEASE, &PostParams::default(), &written).await,
    };
    match result {
        Ok(_) => Ok(Round::Leading),
        // Somebody else wrote it since we read it.
        Err(Error::Api(status)) if status.code == http::StatusCode::CONFLICT => Ok(Round::Following(RETRY)),
        Err(error) => Err(error),
    }
}

/// How long to wait after a failure; a leader that may have been succeeded stops leading.
fn retry(why: &str, since_renewal: Option<Duration>, leading: &watch::Sender<bool>, me: &str) -> Duration {
    tracing::debug!(why, "the Lease {LEASE}");
    if since_renewal.is_none_or(|since| since + RETRY >= STEP_DOWN) {
        tell(leading, false, me);
    }
    RETRY
}

fn tell(leading: &watch::Sender<bool>, leads: bool, me: &str) {
    if leading.send_replace(leads) != leads {
        tracing::info!(me, leads, "election");
    }
}

async fn free(leases: &Api<Lease>, candidate: &Candidate) -> Result<(), Error> {
    if let Some(lease) = leases.get_opt(LEASE).await?
        && lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(&candidate.me)
    {
        let freed = written(Some(&lease), "", Timestamp::now());
        leases.replace(LEASE, &PostParams::default(), &freed).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(60),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    #[test]
    fn a_free_lease_is_taken_and_a_held_one_is_waited_for() {
        let start = Instant::now();
        let mut b = Candidate::new("b");
        assert_eq!(b.step(None, start), Step::Create);
        assert_eq!(b.step(Some(&lease("", "1")), start), Step::Write);
        assert_eq!(b.step(Some(&lease("b", "2")), start), Step::Write);
        assert_eq!(b.step(Some(&lease("a", "3")), start), Step::Wait(DURATION + b.jitter));
    }

    #[test]
    fn only_a_lease_that_does_not_change_expires() {
        let start = Instant::now();
        let mut b = Candidate::new("b");
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(matches!(b.step(Some(&lease("a", "1")), start), Step::Wait(_)));
        assert!(matches!(b.step(Some(&lease("a", "2")), after(59)), Step::Wait(_)));
        assert!(matches!(b.step(Some(&lease("a", "2")), after(118)), Step::Wait(_)), "59 s since it changed");
        assert_eq!(b.step(Some(&lease("a", "2")), after(119)), Step::Write);
        let mut patient = lease("a", "9");
        patient.spec.as_mut().expect("it has one").lease_duration_seconds = Some(300);
        assert!(matches!(b.step(Some(&patient), after(200)), Step::Wait(_)));
        assert!(matches!(b.step(Some(&patient), after(499)), Step::Wait(_)));
        assert_eq!(b.step(Some(&patient), after(500)), Step::Write);
    }

    #[test]
    fn a_write_names_the_version_that_was_read_and_counts_transitions() {
        let taken = written(Some(&lease("a", "7")), "b", Timestamp::UNIX_EPOCH);
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
        let spec = taken.spec.clone().expect("a spec");
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(4)));
        let later = Timestamp::from_second(20).expect("a time");
        let renewed = written(Some(&taken), "b", later).spec.expect("a spec");
        assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(4), spec.acquire_time));
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
    }

    #[test]
    fn candidates_are_spread_over_the_duration() {
        let jitters: Vec<Duration> = (0..200).map(|n| Candidate::new(&format!("node-{n}")).jitter).collect();
        assert!(jitters.iter().all(|j| *j < DURATION));
        let quarter =
            |n: u32| jitters.iter().filter(|j| **j >= DURATION * n / 4 && **j < DURATION * (n + 1) / 4).count();
        assert!((0..4).all(|n| quarter(n) > 25), "{jitters:?}");
    }

    #[test]
    fn a_leader_steps_down_before_another_one_may_begin() {
        let (leading, told) = watch::channel(true);
        assert_eq!(retry("", Some(RENEW + TIMEOUT), &leading, "a"), RETRY);
        assert!(*told.borrow(), "one failure is no end");
        retry("", Some(RENEW + TIMEOUT + RETRY + TIMEOUT), &leading, "a");
        assert!(!*told.borrow());
        // From the last renewal to the end of leading: the age that is looked at, and one request that hangs.
        assert!(STEP_DOWN + TIMEOUT <= DURATION);
    }
}
