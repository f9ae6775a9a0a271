//! TLS, tunnels, proxy protocol, retry budgets.

use crate::crd::Notes;
use crate::crd::fields::{Fault, Fields};
use crate::program::{ClientTls, ClientTlsFiles, RetryBudget, Share, Tunnel};

/// Of the requests under way, where a budget does not say it.
const BUDGET_PERCENT: f64 = 20.0;
/// Retries that are allowed all the same, where a budget does not say it.
const MIN_RETRIES: u32 = 3;

pub(super) fn client_tls(fields: &mut Fields<'_>, _: &mut Notes<'_>) -> Result<ClientTls, Fault> {
    let mode = fields.text("mode")?.unwrap_or_default().into();
    let mut text = |key: &str| Ok::<Box<str>, Fault>(fields.text(key)?.unwrap_or_default().into());
    let more = ClientTlsFiles {
        client_certificate: text("clientCertificate")?,
        private_key: text("privateKey")?,
        ca_certificates: text("caCertificates")?,
        ca_crl: text("caCrl")?,
        credential_name: text("credentialName")?,
        sni: text("sni")?,
        subject_alt_names: fields.texts("subjectAltNames")?.into_iter().map(|(name, _)| name.into()).collect(),
        insecure_skip_verify: fields.boolean("insecureSkipVerify")?.unwrap_or(false),
    };
    Ok(ClientTls { mode, broken: false, more: (more != ClientTlsFiles::default()).then(|| Box::new(more)) })
}

pub(super) fn tunnel(fields: &mut Fields<'_>, _: &mut Notes<'_>) -> Result<Tunnel, Fault> {
    let post = fields.text("protocol")? == Some("POST");
    let host = fields.required_text("targetHost")?.into();
    let port = fields.port("targetPort")?;
    let port = port.ok_or_else(|| Fault::new(fields.mark, fields.path_of("targetPort"), "must be given"))?;
    Ok(Tunnel { post, host, port })
}

pub(super) fn proxy_protocol(fields: &mut Fields<'_>, _: &mut Notes<'_>) -> Result<u8, Fault> {
    Ok(if fields.text("version")? == Some("V2") { 2 } else { 1 })
}

pub(super) fn retry_budget(fields: &mut Fields<'_>, _: &mut Notes<'_>) -> Result<RetryBudget, Fault> {
    let share = Share::of_percent(fields.number("percent")?.unwrap_or(BUDGET_PERCENT));
    let least = fields.integer("minRetryConcurrency", 0..=i64::from(u32::MAX))?;
    // Envoy has no such interval; Istio's schema takes it.
    fields.entry("budgetInterval");
    Ok(RetryBudget { share, min_retry_concurrency: least.map_or(MIN_RETRIES, |least| least as u32) })
}
