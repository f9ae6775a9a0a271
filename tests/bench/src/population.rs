//! The objects of a large cluster, as manifests: services with two ports, endpoints with their pods, and rules for some
//! of the services. Used by `main`.

use std::fmt::Write as _;

use weir_mesh::crd::Object;
use weir_mesh::source::ObjectRef;
use weir_mesh::store::Store;

/// Services in a namespace.
const IN_A_NAMESPACE: usize = 100;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Population {
    pub(crate) services: usize,
    /// Each with a pod, and spread evenly over the services.
    pub(crate) endpoints: usize,
    /// Each with a DestinationRule; for the first services.
    pub(crate) virtual_services: usize,
}

impl Population {
    /// All objects, read.
    pub(crate) fn read(&self) -> Store {
        let mut store = Store::new();
        for first in (0..self.services).step_by(IN_A_NAMESPACE) {
            let namespace = namespace(first);
            let mut text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
            for service in first..(first + IN_A_NAMESPACE).min(self.services) {
                self.service(service, &mut text);
                text.push_str(&self.slice(service, true));
                if service < self.virtual_services {
                    text.push_str(&rules(service));
                    text.push_str(&virtual_service(service, 90));
                }
            }
            store.set_file(&format!("{namespace}.yaml"), &text);
        }
        store
    }

    /// The first endpoint of each service and the one after its last.
    fn endpoints_of(&self, service: usize) -> std::ops::Range<usize> {
        self.endpoints * service / self.services..self.endpoints * (service + 1) / self.services
    }

    fn service(&self, service: usize, text: &mut String) {
        let namespace = namespace(service);
        let (high, low) = (service / 250, service % 250 + 1);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s-{service}, namespace: {namespace}}}\n\
             spec: {{clusterIP: 10.96.{high}.{low}, selector: {{app: s-{service}}}, \
             ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: tcp-db, port: 5432}}]}}\n"
        );
        for endpoint in self.endpoints_of(service) {
            let version = if endpoint % 5 == 0 { "v2" } else { "v1" };
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p-{endpoint}, namespace: {namespace}, \
                 labels: {{app: s-{service}, version: {version}}}}}\nspec: {{nodeName: n-{}}}\n\
                 status: {{phase: Running, podIPs: [{{ip: {}}}]}}\n",
                endpoint % 500,
                address(endpoint)
            );
        }
    }

    /// The slice of a service, its first endpoint ready or not.
    pub(crate) fn slice(&self, service: usize, first_is_ready: bool) -> String {
        let namespace = namespace(service);
        let mut text = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s-{service}-0, namespace: \
             {namespace}, labels: {{kubernetes.io/service-name: s-{service}}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: 8080}}, {{name: tcp-db, port: 5432}}]\nendpoints:\n"
        );
        for (position, endpoint) in self.endpoints_of(service).enumerate() {
            let ready = position > 0 || first_is_ready;
            let _ = writeln!(
                text,
                "- {{addresses: [{}], conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: p-{endpoint}, \
                 namespace: {namespace}}}}}",
                address(endpoint)
            );
        }
        text
    }
}

fn namespace(service: usize) -> String {
    format!("ns-{}", service / IN_A_NAMESPACE)
}

fn address(endpoint: usize) -> String {
    format!("10.{}.{}.{}", 128 + endpoint / 62_500, endpoint / 250 % 250, endpoint % 250 + 1)
}

fn rules(service: usize) -> String {
    let namespace = namespace(service);
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: s-{service}, namespace: \
         {namespace}}}\nspec: {{host: s-{service}, trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}}}, subsets: \
         [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}\n"
    )
}

/// The VirtualService of a service, with a share for its first version.
pub(crate) fn virtual_service(service: usize, share: usize) -> String {
    let namespace = namespace(service);
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: s-{service}, namespace: \
         {namespace}}}\nspec:\n  hosts: [s-{service}]\n  http:\n  - match: [{{uri: {{prefix: /v2}}}}, {{headers: \
         {{x-user: {{exact: beta}}}}}}]\n    route: [{{destination: {{host: s-{service}, subset: v2, port: {{number: \
         80}}}}}}]\n  - route: [{{destination: {{host: s-{service}, subset: v1, port: {{number: 80}}}}, weight: \
         {share}}}, {{destination: {{host: s-{service}, subset: v2, port: {{number: 80}}}}, weight: {}}}]\n",
        100 - share
    )
}

/// The name of the route of a number.
pub(crate) fn route_name(number: usize) -> String {
    format!("r{number:04}")
}

/// A service with as many routes, each with the match that `item` writes and two destinations by weight; and, with
/// `rest`, one more that takes everything.
pub(crate) fn routes(count: usize, item: impl Fn(usize) -> String, rest: bool) -> Store {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n\
                    spec: {clusterIP: 10.96.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: shop}\n\
                    spec: {clusterIP: 10.96.0.2, selector: {app: a}, ports: [{name: http, port: 80}]}\n---\n\
                    apiVersion: v1\nkind: Pod\nmetadata: {name: a-1, namespace: shop, labels: {app: a}}\n\
                    status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}\n---\n\
                    apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: shop}\n\
                    spec:\n  hosts: [a]\n  http:\n"
        .to_owned();
    let to = "route: [{destination: {host: a}, weight: 9}, {destination: {host: b}, weight: 1}]";
    for number in 0..count {
        let _ = write!(text, "  - name: {}\n    match: [{}]\n    {to}\n", route_name(number), item(number));
    }
    if rest {
        let _ = write!(text, "  - name: {}\n    {to}\n", route_name(count));
    }
    let mut store = Store::new();
    store.set_file("routes.yaml", &text);
    store
}

/// The object that a text holds.
pub(crate) fn object(text: &str, kind: &str, service: usize) -> Option<Object> {
    let (group, name) = match kind {
        "VirtualService" => ("networking.istio.io", format!("s-{service}")),
        _ => ("discovery.k8s.io", format!("s-{service}-0")),
    };
    let mut store = Store::new();
    store.set_file("object.yaml", text);
    let named =
        ObjectRef { kind: kind.into(), group: group.into(), namespace: namespace(service).into(), name: name.into() };
    store.snapshot().get(&named)
}
