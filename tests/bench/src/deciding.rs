//! Decisions on a host with many routes, of several sorts: the time of each, and what it allocates. Called by `main`.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, HeaderValue, Method};
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::program::{PortId, Program};
use weir_mesh::request::{RequestView, Source};
use weir_mesh::route::{RouteDecision, decide};

use crate::clock::Stopwatch;
use crate::table::{Table, ns, row};
use crate::{heap, population};

/// What is promised of a decision among 1,000 routes.
const WITHIN: Duration = Duration::from_micros(1);
/// Decisions of each sort: long enough that the clock does not count.
const DECISIONS: u32 = 20_000;

/// Routes of one sort, and the request that one of them takes.
struct Sort {
    name: &'static str,
    /// The match of the route of this number.
    item: fn(usize) -> String,
    /// The path that is asked for when it is to be taken.
    path: fn(usize) -> String,
    /// The value of `x-user` that is sent.
    user: fn(usize) -> String,
    /// Whether [`WITHIN`] is its goal.
    promised: bool,
}

fn shop(number: usize) -> String {
    format!("/shop/{number:04}")
}

fn user(number: usize) -> String {
    format!("u{number:04}")
}

fn same(_: usize) -> String {
    "same".to_owned()
}

const SORTS: &[Sort] = &[
    Sort {
        name: "by exact path",
        item: |n| format!("{{uri: {{exact: {}}}}}", shop(n)),
        path: shop,
        user: same,
        promised: true,
    },
    Sort {
        name: "by prefix",
        item: |n| format!("{{uri: {{prefix: {}}}}}", shop(n)),
        path: |n| format!("{}/x", shop(n)),
        user: same,
        promised: true,
    },
    Sort {
        name: "by exact path and header",
        item: |n| format!("{{uri: {{exact: {}}}, headers: {{x-user: {{exact: same}}}}}}", shop(n)),
        path: shop,
        user: same,
        promised: true,
    },
    Sort {
        name: "by header alone",
        item: |n| format!("{{headers: {{x-user: {{exact: {}}}}}}}", user(n)),
        path: |_| "/".to_owned(),
        user,
        promised: true,
    },
    Sort {
        name: "by one path and header",
        item: |n| format!("{{uri: {{prefix: /shop}}, headers: {{x-user: {{exact: {}}}}}}}", user(n)),
        path: |_| "/shop/x".to_owned(),
        user,
        promised: true,
    },
    // Each is a program of its own, and no order among them is known: told, and not promised.
    Sort {
        name: "by regular expression",
        item: |n| format!("{{uri: {{regex: '{}(/.*)?'}}}}", shop(n)),
        path: shop,
        user: same,
        promised: false,
    },
];

/// All sorts; on a host where a rule takes what no other does, and on one where such a request is answered with 404.
pub(crate) fn measure(table: &mut Table, routes: usize) -> Result<()> {
    for sort in SORTS {
        let program = program_of(routes, sort, false);
        for (place, number) in [("first", 0), ("last", routes - 1), ("none", routes)] {
            one(table, sort, &program, &format!("{routes} routes {}: {place}", sort.name), number, number < routes)?;
        }
        let program = program_of(routes, sort, true);
        one(table, sort, &program, &format!("{routes} routes {}: the rest", sort.name), routes, true)?;
    }
    Ok(())
}

fn program_of(routes: usize, sort: &Sort, rest: bool) -> Program {
    let store = population::routes(routes, sort.item, rest);
    compile(&store.snapshot(), &CompileOptions::default()).program
}

fn one(table: &mut Table, sort: &Sort, program: &Program, what: &str, number: usize, found: bool) -> Result<()> {
    let (took, allocations) = time(program, sort, number, found)?;
    if sort.promised {
        table.time(what, took, WITHIN);
    } else {
        row(what, &ns(took));
    }
    table.none(&format!("  allocations in {DECISIONS} decisions"), allocations);
    Ok(())
}

fn time(program: &Program, sort: &Sort, number: usize, found: bool) -> Result<(Duration, usize)> {
    let port = program.port_of(0, ([10, 96, 0, 1], 80).into()).context("the service has an address")?;
    let mut headers = HeaderMap::new();
    for (name, value) in [("host", "a"), ("user-agent", "bench"), ("accept", "*/*"), ("x-request-id", "1")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("x-user", HeaderValue::from_str(&(sort.user)(number))?);
    let path = (sort.path)(number);
    let request = RequestView {
        method: &Method::GET,
        scheme: "http",
        authority: "a.shop.svc.cluster.local:80",
        path: &path,
        query: None,
        headers: &headers,
    };
    // What is made at first use, such as the caches of regular expressions, is not a decision's.
    let taken = match decided(program, port, &request, 1) {
        RouteDecision::Forward { route: Some(route), destination: Some(_), .. } => Some(&*route.name),
        _ => None,
    };
    let meant = population::route_name(number);
    ensure!(
        taken.is_some() == found && taken.is_none_or(|name| name == meant),
        "{path} is taken by {taken:?}, and {meant} was meant"
    );
    let (before, started) = (heap::count(), Stopwatch::start());
    for roll in 0..DECISIONS {
        black_box(decided(program, port, &request, u64::from(roll) << 32));
    }
    Ok((started.elapsed() / DECISIONS, heap::count() - before))
}

fn decided<'p>(program: &'p Program, port: PortId, request: &RequestView<'_>, roll: u64) -> RouteDecision<'p> {
    decide(black_box(program), port, &Source { namespace: "shop", view: 0 }, black_box(request), roll)
}
