//! What the client gets in the end, in the words and codes of this version's data path. Used by [`super`].

use super::model::{Destination, Explanation, Outcome};
use super::resolve::{Otherwise, Resolved};
use crate::plan::Verdict;
use crate::program::{Abort, Redirect, Route};

/// An answer that is the proxy's own, whatever is behind the destinations.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    flag: Option<&'static str>,
    why: String,
    /// Whether it is what the rules ask for.
    meant: bool,
    /// Of requests such as this, how many get it, in percent.
    share: f64,
}

impl Answer {
    pub(super) fn no_route() -> Self {
        let why = "the host has rules, and none takes the request".to_owned();
        Self { status: 404, flag: Some("NR"), why, meant: false, share: 100.0 }
    }

    pub(super) fn bad_request(spoken: &str) -> Self {
        let why = format!("the port is declared to carry HTTP, and {spoken} is none that the proxy reads");
        Self { status: 400, flag: Some("DPE"), why, meant: false, share: 100.0 }
    }

    pub(super) fn no_host() -> Self {
        let why = "no host of the gateway has this name".to_owned();
        Self { status: 404, flag: Some("NR"), why, meant: false, share: 100.0 }
    }

    pub(super) fn redirect(redirect: &Redirect, location: &str) -> Self {
        Self { status: redirect.code, flag: None, why: format!("redirected to {location}"), meant: true, share: 100.0 }
    }

    pub(super) fn https_redirect(location: &str) -> Self {
        Self { status: 301, flag: None, why: format!("redirected to {location}"), meant: true, share: 100.0 }
    }

    pub(super) fn respond(status: u16) -> Self {
        Self { status, flag: None, why: "the rule answers itself".to_owned(), meant: true, share: 100.0 }
    }

    /// The fault that strikes the request of this roll; without one, its share of all requests. Nobody answers what is
    /// aborted.
    pub(super) fn fault(route: &Route, roll: Option<u64>) -> Option<Self> {
        let fault = route.settings.as_ref()?.fault.as_ref()?;
        let (abort, share) = match roll {
            Some(roll) => (fault.draw(roll).1?, 100.0),
            None => fault.abort.map(|(abort, share)| (abort, f64::from(share.millionths()) / 10_000.0))?,
        };
        let status = match abort {
            Abort::Http(status) => status,
            // What gRPC clients are told is in a header.
            Abort::Grpc(_) => 200,
        };
        let why = "the rule's fault aborts it".to_owned();
        (share > 0.0).then_some(Self { status, flag: Some("FI"), why, meant: false, share })
    }

    /// What becomes of requests of which these destinations get what no answer of the proxy's own keeps from them.
    pub(super) fn and_destinations(
        answer: Option<Self>,
        way: &str,
        destinations: &[Destination],
        by_roll: bool,
    ) -> Outcome {
        let Some(answer) = answer else { return by_destinations(way, destinations, by_roll, 100.0) };
        if answer.share >= 100.0 {
            return answer.outcome(way);
        }
        let rest = by_destinations(way, destinations, by_roll, 100.0 - answer.share);
        let summary = format!("{} {}; {}", percent(answer.share), answer.in_words(), rest.summary);
        Outcome { summary, ..rest }
    }

    fn in_words(&self) -> String {
        match self.flag {
            Some(flag) => format!("{} ({flag}): {}", self.status, self.why),
            None => format!("{}: {}", self.status, self.why),
        }
    }

    pub(super) fn outcome(self, way: &str) -> Outcome {
        Outcome {
            way: way.to_owned(),
            answered: if self.meant { 100.0 } else { 0.0 },
            status: Some(self.status),
            summary: self.in_words(),
            flag: self.flag.map(str::to_owned),
        }
    }
}

/// Of a connection that nobody touches.
fn untouched(why: &str, resolved: &Resolved) -> Outcome {
    let way = "pass".to_owned();
    let (answered, what) = match resolved.otherwise {
        Otherwise::NoName => (0.0, "the name cannot be resolved"),
        Otherwise::NoPort => (0.0, "nobody answers on that port"),
        Otherwise::Outside => (100.0, "the client connects by itself"),
        // What its rules lead to does not count here.
        Otherwise::Endpoints { ready: true } => (100.0, "kube-proxy chooses an endpoint of the Service"),
        Otherwise::Endpoints { ready: false } => (0.0, "the Service has no ready endpoint"),
    };
    Outcome { way, answered, status: None, flag: None, summary: format!("as without weir, {why}: {what}") }
}

/// Of a request from a pod.
pub(super) fn of_client(
    explanation: &Explanation,
    verdict: Verdict,
    resolved: &Resolved,
    answer: Option<Answer>,
    by_roll: bool,
) -> Outcome {
    if let Some(why) = &explanation.client.why_not {
        return untouched(&format!("as the client does not take part ({why})"), resolved);
    }
    let Some(kernel) = &explanation.kernel else {
        return untouched("as no service port of the mesh is dialled", resolved);
    };
    match verdict {
        Verdict::Pass => untouched(&format!("as {}", kernel.why), resolved),
        Verdict::Reject => Outcome {
            way: "reject".to_owned(),
            summary: format!("connection refused: {}", kernel.why),
            ..Outcome::default()
        },
        Verdict::Balance => by_destinations("balance", &explanation.destinations, false, 100.0),
        Verdict::Proxy => Answer::and_destinations(answer, "proxy", &explanation.destinations, by_roll),
    }
}

/// Of what goes to destinations by weight; `of` is how many of all requests these are, in percent.
fn by_destinations(way: &str, destinations: &[Destination], by_roll: bool, of: f64) -> Outcome {
    let asked = |one: &&Destination| if by_roll { one.chosen } else { one.share > 0.0 };
    let share = |one: &Destination| if by_roll { of } else { one.share * of / 100.0 };
    let alive = || destinations.iter().filter(asked).filter(|one| one.dead.is_none());
    let dead = || destinations.iter().filter(asked).filter_map(|one| Some((one, one.dead.as_ref()?)));
    // Shares of alive ones add up to all but for rounding where all of them are.
    let answered = if dead().next().is_none() && alive().next().is_some() { of } else { alive().map(share).sum() };
    let mut parts: Vec<String> = alive().map(|one| format!("{} to {}", percent(share(one)), short(one))).collect();
    parts.extend(dead().map(|(one, dead)| {
        let what = match (dead.status, &dead.flag) {
            (Some(status), Some(flag)) => format!("{status} ({flag})"),
            _ => "refused".to_owned(),
        };
        format!("{} {what}: {}", percent(share(one)), dead.why)
    }));
    if parts.is_empty() {
        parts.push("there is no destination: the connection is refused".to_owned());
    }
    let first = dead().next().map(|(_, dead)| dead).filter(|_| answered == 0.0);
    Outcome {
        way: way.to_owned(),
        answered,
        status: first.and_then(|dead| dead.status),
        flag: first.and_then(|dead| dead.flag.clone()),
        summary: parts.join("; "),
    }
}

/// At most two decimals, and none that are zero.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{share:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `v1 of service-b.default.svc.cluster.local:80`
fn short(destination: &Destination) -> String {
    let mut parts = destination.name.split('|').skip(1);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(port), Some(""), Some(host)) => format!("{host}:{port}"),
        (Some(port), Some(subset), Some(host)) => format!("{subset} of {host}:{port}"),
        _ => destination.name.clone(),
    }
}
