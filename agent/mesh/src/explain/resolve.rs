//! From the host of a URL to the address that a client connects to, as its resolver would do it in a cluster: short names
//! in its own namespace first, then with the cluster's search domains. Used by [`super`].

use std::net::{IpAddr, SocketAddr};

use super::model::{Dialled, Origin};
use crate::compile::describe::{Describer, Member};
use crate::crd::{Mark, Service, ServiceType};

/// `ndots` of pods: a name with fewer dots is completed first.
const NDOTS: usize = 5;

/// Where a client connects to.
pub(super) struct Resolved {
    pub(super) shown: Dialled,
    /// `None`: no address is known, or there is none.
    pub(super) address: Option<SocketAddr>,
    /// The FQDN of the service, or the host of a ServiceEntry.
    pub(super) host: Option<String>,
    /// What comes of it where the kernel knows nothing of the address.
    pub(super) otherwise: Otherwise,
}

/// What becomes of a connection that weir does not look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// There is no such name in the cluster.
    NoName,
    /// There is no such port.
    NoPort,
    /// Somebody outside may answer.
    Outside,
    /// The Service's endpoints, by kube-proxy, if any is ready.
    Endpoints { ready: bool },
}

pub(super) fn resolve(describer: &Describer<'_>, namespace: &str, domain: &str, host: &str, port: u16) -> Resolved {
    let lower = host.to_ascii_lowercase();
    if let Ok(address) = lower.parse::<IpAddr>() {
        return of_address(describer, host, address.to_canonical(), port);
    }
    let absolute = lower.strip_suffix('.');
    let full = absolute.unwrap_or(&lower);
    let completed =
        [format!("{full}.{namespace}.svc.{domain}"), format!("{full}.svc.{domain}"), format!("{full}.{domain}")];
    let mut names: Vec<String> = if absolute.is_none() { completed.into() } else { Vec::new() };
    if full.matches('.').count() >= NDOTS {
        names.insert(0, full.to_owned());
    } else {
        names.push(full.to_owned());
    }
    for name in &names {
        if let Some((service, _)) = describer.service(name) {
            return of_service(describer, host, name, service, port);
        }
        if let Some(found) = of_pod(describer, host, name, port) {
            return found;
        }
    }
    let inside = !full.contains('.') || full.ends_with(&format!(".svc.{domain}"));
    let (words, otherwise) = if inside {
        (format!("no Service has this name: {} were tried", names.join(", ")), Otherwise::NoName)
    } else {
        ("no Service or ServiceEntry has this name: an address outside, as DNS says".to_owned(), Otherwise::Outside)
    };
    Resolved { shown: dialled(host, words, None, port), address: None, host: None, otherwise }
}

fn dialled(host: &str, resolved: String, address: Option<SocketAddr>, port: u16) -> Dialled {
    let address = address.map(|address| address.to_string());
    Dialled { host: host.to_owned(), resolved, address, port, object: None, protocol: None }
}

fn of_address(describer: &Describer<'_>, host: &str, address: IpAddr, port: u16) -> Resolved {
    let found = describer.host_at(address).map(ToString::to_string);
    let words = found
        .as_ref()
        .map_or_else(|| "an address that no Service has".to_owned(), |name| format!("an address of {name}"));
    let address = Some(SocketAddr::new(address, port));
    let mut shown = dialled(host, words, address, port);
    let mut otherwise = Otherwise::Outside;
    if let Some((name, (service, _))) = found.as_ref().and_then(|name| Some((name, describer.service(name)?))) {
        otherwise = name_port(describer, name, service, port, &mut shown);
    }
    Resolved { shown, address, host: found, otherwise }
}

/// Adds who is asked.
fn name_port(describer: &Describer<'_>, name: &str, service: &Service, port: u16, shown: &mut Dialled) -> Otherwise {
    let mark = service.port(port).map_or(Mark::default(), |port| port.mark);
    shown.object = Some(Origin::new(&service.meta.object, service.meta.place(mark).as_ref()));
    if service.kind == ServiceType::ExternalName
        || (service.kind != ServiceType::Headless && service.port(port).is_some())
    {
        return Otherwise::Endpoints { ready: describer.members(name, port).iter().any(|member| member.ready) };
    }
    if service.kind == ServiceType::Headless {
        return Otherwise::Outside;
    }
    let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
    shown.resolved = format!("{}; it has no port {port}, but {}", shown.resolved, ports.join(", "));
    Otherwise::NoPort
}

fn of_service(describer: &Describer<'_>, host: &str, name: &str, service: &Service, port: u16) -> Resolved {
    let entry = describer.service(name).and_then(|(_, entry)| entry);
    let address = match service.kind {
        ServiceType::ExternalName => None,
        ServiceType::Headless => first(&members(describer, name, service)).map(|address| address.ip()),
        ServiceType::ClusterIp => service.addresses.first().copied(),
    };
    let words = match (service.kind, address, entry) {
        (ServiceType::ExternalName, ..) => format!("{name}, an alias (type ExternalName): weir does not look at it"),
        (ServiceType::Headless, Some(ip), _) => format!("{name}, headless: one of its pods, here {ip}"),
        (ServiceType::Headless, None, _) => format!("{name}, headless, and no pod of it has an address"),
        (_, Some(ip), _) => format!("{name}: {ip}"),
        (_, None, Some(_)) => format!("{name}, a ServiceEntry without addresses: where DNS says"),
        (_, None, None) => format!("{name}, which has no clusterIP"),
    };
    let address = address.map(|ip| SocketAddr::new(ip, port));
    let mut shown = dialled(host, words, address, port);
    let mut otherwise = name_port(describer, name, service, port, &mut shown);
    if let Some(entry) = entry {
        shown.object = Some(Origin::new(&entry.meta.object, entry.meta.at()));
        otherwise = Otherwise::Outside;
    }
    if service.kind == ServiceType::ExternalName {
        otherwise = Otherwise::Outside;
    }
    Resolved { shown, address, host: Some(name.to_owned()), otherwise }
}

fn members(describer: &Describer<'_>, name: &str, service: &Service) -> Vec<Member> {
    service.ports.iter().flat_map(|port| describer.members(name, port.number)).collect()
}

/// A ready one, of IPv4 where there is one.
fn first(members: &[Member]) -> Option<SocketAddr> {
    let ready = || members.iter().filter(|member| member.ready).map(|member| member.address);
    ready().find(SocketAddr::is_ipv4).or_else(|| ready().next())
}

/// `POD.SERVICE.NAMESPACE.svc…` of a headless service.
fn of_pod(describer: &Describer<'_>, host: &str, name: &str, port: u16) -> Option<Resolved> {
    let (pod, above) = name.split_once('.')?;
    let (service, _) = describer.service(above).filter(|(service, _)| service.kind == ServiceType::Headless)?;
    let members = members(describer, above, service);
    let of_pod =
        |member: &&Member| member.pod.as_deref().and_then(|own| own.split_once('/')).is_some_and(|(_, own)| own == pod);
    let ip = members.iter().find(of_pod)?.address.ip();
    let address = Some(SocketAddr::new(ip, port));
    let mut shown = dialled(host, format!("pod {pod} of {above}: {ip}"), address, port);
    let otherwise = name_port(describer, above, service, port, &mut shown);
    Some(Resolved { shown, address, host: Some(above.to_owned()), otherwise })
}
