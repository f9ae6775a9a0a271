//! A request from outside, through a gateway: its listener, the chain that takes it, and the rules behind. Used by
//! [`super`].

use std::sync::Arc;

use super::destinations::Toward;
use super::model::{Client, Dialled, Explanation, HostTried, LeftOut, Origin, Outcome, PolicyVerdict};
use super::outcome::Answer;
use super::trace::Trace;
use super::{Explainer, Question, view_of};
use crate::crd::Labels;
use crate::program::{
    Connection, GatewayDecision, GatewayHost, Handler, ListenerId, WeightedCluster, decide_gateway_observed,
};
use crate::source::ObjectRef;

/// What every answer of a gateway ends with.
const NOT_OPENED: &str = "no port is opened for Gateways by this version: this is what their rules say";

impl Explainer<'_> {
    pub(super) fn through_gateway(
        &mut self,
        question: &Question,
        namespace: &Arc<str>,
        name: &Arc<str>,
        port: Option<u16>,
    ) -> Result<Explanation, String> {
        let full = format!("{namespace}/{name}");
        let gateways = self.gateways(namespace, name)?;
        let wanted = port.unwrap_or(question.port);
        let ports: Vec<_> =
            gateways.iter().flat_map(|one| self.describer.gateway_ports(one).unwrap_or_default()).collect();
        let gateway = ObjectRef { name: Arc::clone(name), ..gateways[0].clone() };
        let Some((server, number, at)) =
            ports.iter().find(|(server, own, _)| *server == wanted || (port.is_some() && *own == wanted)).cloned()
        else {
            let all: Vec<String> = ports.iter().map(|(server, ..)| server.to_string()).collect();
            return Err(format!("Gateway {full} has no server on port {wanted}, but on {}", all.join(", ")));
        };
        let program = self.mesh.program;
        let mut explanation = Explanation {
            client: Client {
                name: format!("somebody outside, through Gateway {full}"),
                namespace: namespace.to_string(),
                takes_part: true,
                ..Client::default()
            },
            dialled: Dialled {
                host: question.host.clone(),
                resolved: format!("port {server} of Gateway {full}, which its pods have as {number}"),
                address: None,
                port: number,
                object: Some(Origin::new(&gateway, at.as_ref())),
                protocol: None,
            },
            policy: PolicyVerdict {
                allowed: true,
                why: "no policy is enforced at gateways by this version".to_owned(),
                origin: None,
                encryption: "plain text toward the destination".to_owned(),
            },
            ..Explanation::default()
        };
        let listener = program.gateways.iter().position(|one| one.port == number);
        match listener {
            Some(listener) => self.outside(question, ListenerId(listener as u32), &mut explanation),
            None => explanation.outcome = closed("nothing is bound to the port: no rule leads anywhere from it"),
        }
        if explanation.rules.is_empty() && explanation.destinations.is_empty() {
            self.unbound(&full, &mut explanation);
        }
        explanation.outcome.summary = format!("{}; {NOT_OPENED}", explanation.outcome.summary);
        Ok(explanation)
    }

    /// Watches the decision of a listener.
    fn outside(&mut self, question: &Question, listener: ListenerId, explanation: &mut Explanation) {
        let program = self.mesh.program;
        let connection = Connection { tls: question.tls, sni: Some(&*question.host).filter(|_| question.tls) };
        let request = view_of(question, if question.tls { "https" } else { "http" });
        let mut trace = Trace::default();
        let roll = question.roll.unwrap_or(0);
        let decision = decide_gateway_observed(program, listener, connection, Some(&request), roll, &mut trace);
        let handler = program.gateway_listener(listener).chains(connection).next().map(|chain| &chain.handler);
        explanation.dialled.protocol = handler.map(|handler| match handler {
            Handler::Http(_) => "HTTP".to_owned(),
            Handler::Tcp(_) => "TCP".to_owned(),
        });
        // The gateway's pods are clients of the root namespace.
        let view = self.mesh.views.of(&self.mesh.options.root_namespace, &Labels::new());
        let client = self.mesh.own_place();
        let toward = Toward { mesh: self.mesh, view, client: &client, dialled: None, by_kernel: false, by_proxy: true };
        let by_roll = question.roll.is_some();
        let tried = |found: Option<&GatewayHost>| {
            vec![HostTried { name: question.authority.clone(), found: found.map(|host| host.name.to_string()) }]
        };
        let mismatch =
            if question.tls { "TLS, where plain HTTP is expected" } else { "plain text, where TLS is expected" };
        let answer = match &decision {
            GatewayDecision::NoChain => Err("no server takes this name (SNI)"),
            GatewayDecision::TlsMismatch => Err(mismatch),
            GatewayDecision::NotHttp => Err("no HTTP, where HTTP is expected"),
            GatewayDecision::NoHost => {
                explanation.hosts = tried(None);
                Ok(Some(Answer::no_host()))
            }
            GatewayDecision::HttpsRedirect(host) => {
                explanation.hosts = tried(Some(host));
                let host = crate::route::split_port(&question.authority).0;
                let query = question.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
                Ok(Some(Answer::https_redirect(&format!("https://{host}{}{query}", question.path))))
            }
            GatewayDecision::Forward(chosen) => {
                let destinations: &[WeightedCluster] = match handler {
                    Some(Handler::Tcp(destinations)) => destinations,
                    Some(Handler::Http(_)) | None => &[],
                };
                let chosen = chosen.filter(|_| by_roll);
                explanation.destinations = toward.all(&mut self.describer, destinations, chosen);
                Ok(None)
            }
            GatewayDecision::Routed(host, decision) => {
                explanation.hosts = tried(Some(host));
                let nobody = WeightedCluster::default();
                Ok(self.decided(decision, &toward, &nobody, question, &request, explanation))
            }
        };
        explanation.rules = trace.rules;
        explanation.rules_not_reached = trace.not_reached;
        explanation.outcome = match answer {
            Err(why) => closed(why),
            Ok(answer) => Answer::and_destinations(answer, "gateway", &explanation.destinations, by_roll),
        };
    }

    /// Istio's Gateway of this name, or what the listeners of the Gateway API's come to, which are called after it. At
    /// least one.
    fn gateways(&self, namespace: &Arc<str>, name: &Arc<str>) -> Result<Vec<ObjectRef>, String> {
        let of_name = |own: &str| own == &**name || own.strip_prefix(&**name).is_some_and(|rest| rest.starts_with('~'));
        let all = self.mesh.snapshot.gateways.values().map(|gateway| &gateway.meta.object);
        let found: Vec<ObjectRef> =
            all.filter(|one| one.namespace == *namespace && of_name(&one.name)).cloned().collect();
        if found.is_empty() { Err(format!("there is no Gateway {namespace}/{name} of weir's")) } else { Ok(found) }
    }

    /// Rules that name the gateway, and lead nowhere from here.
    fn unbound(&self, gateway: &str, explanation: &mut Explanation) {
        let bound = self.describer.bound_to(gateway);
        explanation.left_out = bound
            .into_iter()
            .map(|object| LeftOut {
                origin: Origin::new(&object, self.describer.place(&object).as_ref()),
                why: "no host of it is served for this name on this port".to_owned(),
            })
            .collect();
    }
}

fn closed(why: &str) -> Outcome {
    Outcome { way: "gateway".to_owned(), summary: format!("the connection is closed: {why}"), ..Outcome::default() }
}
