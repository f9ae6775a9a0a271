//! What happens during a soak, and when: the scene, its loads, the changes around them, and what is judged. Driven by
//! `mod`, a tenth of a second at a time.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weir_tests::canary::{BACKENDS, HTTP_PORT, TCP_PORT};
use weir_tests::{Agent, Canary, HttpLoad, PodSpec, Report, load};

use super::End;
use super::meter::Meter;
use super::vitals::{Life, Vitals};

/// Periods without a common factor, so that every change meets every other one.
const WEIGHTS_EVERY: Duration = Duration::from_secs(5);
const OPT_EVERY: Duration = Duration::from_secs(7);
const ENDPOINT_EVERY: Duration = Duration::from_secs(11);
const LOOK_EVERY: Duration = Duration::from_secs(13);
/// The weights of v1 and v2, in turn.
const WEIGHTS: [(u32, u32); 4] = [(90, 10), (50, 50), (10, 90), (100, 0)];
/// A change is in force within 100 ms on an idle machine; what is counted before this belongs to neither side.
const SETTLED: Duration = Duration::from_millis(500);
/// A split may miss by so many standard deviations: one phase in a million does by chance.
const DEVIATIONS: f64 = 5.0;
/// After a kill, until the client has counted what was in flight.
const COUNTED: Duration = Duration::from_millis(1500);
/// What is wrong is told so many times; the rest is counted.
const MAX_WRONG: usize = 20;

const GUEST: &str = "guest";
const OPT_IN: &str = "weir.mesh/mode";
/// The pod that leaves and joins service-b.
const WANDERER: &str = BACKENDS[1].0;

/// Which of the loads shows the split: one of new connections. A kept connection that was made while no agent was there
/// took a fallback slot, and stays with that endpoint as long as it lives.
const SPLIT: usize = 1;

/// Something that is done over and over.
struct Timer {
    every: Duration,
    due: Instant,
    times: u64,
}

impl Timer {
    fn new(every: Duration) -> Self {
        Self { every, due: Instant::now() + every, times: 0 }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        // From now, not from when it was due: a restart in between must not be followed by a burst of changes.
        self.due = now + self.every;
        self.times += 1;
        true
    }
}

/// The time between two edits of the weights.
struct Phase {
    weights: (u32, u32),
    edited: Instant,
    /// The count of the load whose split is judged, once the weights were settled.
    settled: Option<Report>,
}

impl Phase {
    fn new(weights: (u32, u32)) -> Self {
        Self { weights, edited: Instant::now(), settled: None }
    }
}

/// A soak under way.
pub(super) struct Play {
    // In this order when dropped: clients, the agent, the ground that they stand on.
    meters: Vec<Meter>,
    agent: Agent,
    scene: Canary,
    life: Life,
    lives: Vec<(Duration, Option<Vitals>, Vitals)>,
    born: Instant,
    weights: Timer,
    opt: Timer,
    endpoint: Timer,
    look: Timer,
    restart: Timer,
    kills: u64,
    phase: Phase,
    /// Failures of each load that were in flight at a kill.
    killed: Vec<u64>,
    last_look: Vitals,
    wrong: Vec<String>,
    more_wrong: u64,
}

impl Play {
    /// The scene, an agent that lives for `life`, and the loads.
    pub(super) fn new(life: Duration) -> Result<Self> {
        let mut scene = Canary::new(true)?;
        scene.mesh.add_pod(PodSpec::new(GUEST).label("app", GUEST).label(OPT_IN, "enabled"))?;
        // While the guest does not take part, somebody must do kube-proxy's work for it.
        let pods = BACKENDS.map(|(pod, _)| scene.mesh.pod(pod).at(80));
        scene.mesh.relay(scene.http.at(80), &pods)?;
        scene.manifests.pods(&scene.mesh)?;
        let (v1, v2) = WEIGHTS[0];
        scene.split_http(v1, v2)?;
        scene.split_tcp(90, 10)?;
        let agent = Agent::start(&scene.mesh)?;
        agent.await_verdict(HTTP_PORT, "proxy")?;
        agent.await_verdict(TCP_PORT, "balance")?;
        let http = || HttpLoad::new(scene.http.at(80)).host("service-b");
        let guest = scene.mesh.pod(GUEST);
        let meters = vec![
            Meter::new("kept", 4, http().connections(4).pace(25).start(scene.client())?),
            Meter::new("fresh", 4, http().fresh().connections(4).pace(50).start(scene.client())?),
            Meter::new("guest", 2, http().fresh().connections(2).pace(25).start(guest)?),
            Meter::new("tcp", 2, load::tcp_paced(scene.client(), scene.tcp.at(9000), 2, 50)?),
        ];
        let (killed, now) = (vec![0; meters.len()], Instant::now());
        Ok(Self {
            meters,
            life: Life::new(agent.pid()),
            agent,
            scene,
            lives: Vec::new(),
            born: now,
            weights: Timer::new(WEIGHTS_EVERY),
            opt: Timer::new(OPT_EVERY),
            endpoint: Timer::new(ENDPOINT_EVERY),
            look: Timer::new(LOOK_EVERY),
            restart: Timer::new(life),
            kills: 0,
            phase: Phase::new(WEIGHTS[0]),
            killed,
            last_look: Vitals::default(),
            wrong: Vec::new(),
            more_wrong: 0,
        })
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When the soak cannot go on: the agent or a client has ended, or the machine says no.
    pub(super) fn step(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.phase.settled.is_none() && now.duration_since(self.phase.edited) >= SETTLED {
            self.phase.settled = Some(self.meters[SPLIT].now()?);
        }
        if self.weights.is_due(now) {
            self.judge_split()?;
            let weights = WEIGHTS[self.weights.times as usize % WEIGHTS.len()];
            self.scene.split_http(weights.0, weights.1)?;
            self.phase = Phase::new(weights);
        }
        if self.opt.is_due(now) {
            let mode = if self.opt.times % 2 == 1 { "disabled" } else { "enabled" };
            self.relabel(GUEST, OPT_IN, mode)?;
        }
        if self.endpoint.is_due(now) {
            let app = if self.endpoint.times % 2 == 1 { "parked" } else { "service-b" };
            self.relabel(WANDERER, "app", app)?;
        }
        if self.look.is_due(now) {
            self.look()?;
        }
        if self.restart.is_due(now) {
            self.restart()?;
        }
        Ok(())
    }

    fn relabel(&mut self, pod: &str, key: &str, value: &str) -> Result<()> {
        self.scene.mesh.pod_mut(pod).spec.labels.insert(key.into(), value.into());
        self.scene.manifests.pods(&self.scene.mesh)
    }

    /// Compares the phase that ends with its weights.
    fn judge_split(&mut self) -> Result<()> {
        let Some(settled) = self.phase.settled.take() else { return Ok(()) };
        let (v1, v2) = self.phase.weights;
        if let Some(off) = off(&self.meters[SPLIT].now()?.since(&settled), v1, v2) {
            self.wrong(off);
        }
        Ok(())
    }

    /// Looks at the agent: what it holds, and what it complains about.
    fn look(&mut self) -> Result<()> {
        let (vitals, grown) = self.life.look()?;
        self.last_look = vitals;
        if let Some(grown) = grown {
            self.wrong(grown);
        }
        let status = self.agent.status()?;
        for key in ["problems", "findings"] {
            let list = status[key].as_array().with_context(|| format!("/status has no {key}"))?;
            for item in list.iter().filter(|i| !i.as_str().is_some_and(|text| text.starts_with("Info "))) {
                self.wrong(format!("/status has a line in {key}: {item}"));
            }
        }
        // Days of access log would fill the disk. The agent appends, so it goes on at the new end.
        File::options().write(true).truncate(true).open(self.agent.access_log_path())?;
        Ok(())
    }

    /// A new agent after the old one's polite end, or after none.
    fn restart(&mut self) -> Result<()> {
        self.look()?;
        self.bury();
        if self.restart.times % 2 == 1 {
            self.agent.terminate()?;
            self.agent = Agent::start(&self.scene.mesh)?;
        } else {
            let before = self.failures()?;
            self.kills += 1;
            self.agent.process().kill();
            self.agent = Agent::start(&self.scene.mesh)?;
            std::thread::sleep(COUNTED);
            for (at, failed) in self.failures()?.into_iter().enumerate() {
                // At most one request was in flight on each connection.
                self.killed[at] += (failed - before[at]).min(self.meters[at].connections);
            }
        }
        self.life = Life::new(self.agent.pid());
        self.born = Instant::now();
        Ok(())
    }

    fn bury(&mut self) {
        self.lives.push((self.born.elapsed(), self.life.settled(), self.life.highest));
    }

    fn failures(&self) -> Result<Vec<u64>> {
        self.meters.iter().map(|m| Ok(m.now()?.failed)).collect()
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < MAX_WRONG { self.wrong.push(what) } else { self.more_wrong += 1 }
    }

    /// All loads together.
    pub(super) fn total(&self) -> Result<Report> {
        let mut total = Report::default();
        for meter in &self.meters {
            let report = meter.now()?;
            total.answered += report.answered;
            total.failed += report.failed;
            total.resent += report.resent;
        }
        Ok(total)
    }

    /// The last look at the agent.
    pub(super) fn vitals(&self) -> Vitals {
        self.last_look
    }

    /// What happened so far, in words.
    pub(super) fn events(&self) -> String {
        format!(
            "{} weights, {} opt-ins and -outs, {} endpoints, {} restarts, {} of them kills",
            self.weights.times, self.opt.times, self.endpoint.times, self.restart.times, self.kills
        )
    }

    /// Stops the loads and adds up.
    pub(super) fn end(mut self) -> Result<End> {
        self.judge_split()?;
        self.look()?;
        self.bury();
        let mut loads = Vec::new();
        for (meter, killed) in std::mem::take(&mut self.meters).into_iter().zip(std::mem::take(&mut self.killed)) {
            let name = meter.name;
            let report = meter.stop()?;
            if report.failed > killed || report.answered == 0 {
                let failed = report.failed - killed;
                self.wrong(format!("load {name}: {failed} of {} failed: {:?}", report.answered, report.errors));
            }
            if report.by_status.keys().any(|status| status != "200") {
                self.wrong(format!("load {name}: answers by status {:?}", report.by_status));
            }
            loads.push((name, killed, report));
        }
        let events = self.events();
        if self.more_wrong > 0 {
            self.wrong.push(format!("and {} more", self.more_wrong));
        }
        let (lives, wrong) = (std::mem::take(&mut self.lives), std::mem::take(&mut self.wrong));
        Ok(End { loads, lives, events, wrong })
    }
}

/// How a split is off, in words.
fn off(phase: &Report, v1: u32, v2: u32) -> Option<String> {
    let sample: u64 = phase.by_version.values().sum();
    let p = f64::from(v1) / f64::from(v1 + v2);
    let tolerance = DEVIATIONS * 100.0 * (p * (1.0 - p) / sample.max(1) as f64).sqrt();
    let share = phase.share("v1");
    ((share - 100.0 * p).abs() > tolerance || sample == 0).then(|| {
        format!("weights {v1}/{v2}: v1 got {share:.1} % of {sample}, expected {:.1} ± {tolerance:.1}", 100.0 * p)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(v1: u64, v2: u64) -> Report {
        Report { by_version: [("v1".into(), v1), ("v2".into(), v2)].into(), ..Report::default() }
    }

    #[test]
    fn a_split_is_judged_by_what_chance_allows() {
        assert_eq!(off(&report(920, 80), 90, 10), None);
        assert!(off(&report(960, 40), 90, 10).is_some());
        assert_eq!(off(&report(1000, 0), 100, 0), None);
        assert!(off(&report(999, 1), 100, 0).is_some(), "a weight of 0 gets nothing");
        assert!(off(&report(0, 0), 90, 10).is_some(), "nothing is no split");
    }

    #[test]
    fn a_timer_that_was_held_up_does_not_catch_up() {
        let mut timer = Timer::new(Duration::from_secs(5));
        let late = Instant::now() + Duration::from_mins(1);
        assert!(timer.is_due(late) && !timer.is_due(late));
        assert_eq!(timer.times, 1);
        assert!(timer.is_due(late + Duration::from_secs(5)));
    }
}
