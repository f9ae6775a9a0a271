//! What a rule of an HTTPRoute or a GRPCRoute does to a request beside sending it on.

use super::route::BackendRef;
use super::{Arc, Fault, Fields, Mark, text};

/// One item of `filters[]`.
#[derive(Clone, Debug)]
pub enum Filter {
    /// `RequestHeaderModifier`
    RequestHeaders(HeaderModifier),
    /// `ResponseHeaderModifier`
    ResponseHeaders(HeaderModifier),
    /// `RequestRedirect`
    Redirect(RedirectFilter),
    /// `URLRewrite`
    Rewrite {
        /// `hostname`; empty = as it is.
        hostname: Arc<str>,
        /// `path`
        path: Option<PathModifier>,
    },
    /// `RequestMirror`, with the share of the requests in percent.
    Mirror(BackendRef, f64),
    /// Another type, which this version does not have: where it stands, and its name.
    Other(Mark, Arc<str>),
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Overwritten.
    pub set: Box<[(Arc<str>, Arc<str>)]>,
    /// Appended.
    pub add: Box<[(Arc<str>, Arc<str>)]>,
    /// Taken away.
    pub remove: Box<[Arc<str>]>,
}

/// `RequestRedirect`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedirectFilter {
    /// `scheme`; empty = as it is.
    pub scheme: Arc<str>,
    /// `hostname`; empty = as it is.
    pub hostname: Arc<str>,
    /// `path`
    pub path: Option<PathModifier>,
    /// `port`
    pub port: Option<u16>,
    /// `statusCode`: 302 when it is not given.
    pub status: u16,
}

/// `path` of a redirect or a rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// `ReplaceFullPath`
    Full(Arc<str>),
    /// `ReplacePrefixMatch`
    Prefix(Arc<str>),
}

/// The Gateway API's status of a redirect that names none.
const FOUND: u16 = 302;

impl Filter {
    pub(super) fn decode(mut fields: Fields<'_>) -> Result<Self, Fault> {
        let kind = fields.required_text("type")?;
        Ok(match kind {
            "RequestHeaderModifier" => {
                Self::RequestHeaders(HeaderModifier::decode(&mut fields, "requestHeaderModifier")?)
            }
            "ResponseHeaderModifier" => {
                Self::ResponseHeaders(HeaderModifier::decode(&mut fields, "responseHeaderModifier")?)
            }
            "RequestRedirect" => {
                let mut block = fields.required_map("requestRedirect")?;
                Self::Redirect(RedirectFilter {
                    scheme: text(&mut block, "scheme")?,
                    hostname: text(&mut block, "hostname")?,
                    path: PathModifier::decode(&mut block)?,
                    port: block.port("port")?,
                    status: block.integer("statusCode", 300..=399)?.map_or(FOUND, |status| status as u16),
                })
            }
            "URLRewrite" => {
                let mut block = fields.required_map("urlRewrite")?;
                Self::Rewrite { hostname: text(&mut block, "hostname")?, path: PathModifier::decode(&mut block)? }
            }
            "RequestMirror" => {
                let mut block = fields.required_map("requestMirror")?;
                let percent = block.integer("percent", 0..=100)?.map(|percent| percent as f64);
                let percent = match block.map("fraction")? {
                    None => percent,
                    Some(mut fraction) => {
                        let numerator = fraction.integer("numerator", 0..=i64::from(i32::MAX))?.unwrap_or(0);
                        let denominator = fraction.integer("denominator", 1..=i64::from(i32::MAX))?.unwrap_or(100);
                        Some(numerator as f64 * 100.0 / denominator as f64)
                    }
                };
                Self::Mirror(BackendRef::decode(block.required_map("backendRef")?)?, percent.unwrap_or(100.0))
            }
            other => Self::Other(fields.mark, other.into()),
        })
    }
}

impl PathModifier {
    fn decode(block: &mut Fields<'_>) -> Result<Option<Self>, Fault> {
        let Some(mut path) = block.map("path")? else {
            return Ok(None);
        };
        Ok(Some(match path.text("type")? {
            Some("ReplacePrefixMatch") => Self::Prefix(text(&mut path, "replacePrefixMatch")?),
            _ => Self::Full(text(&mut path, "replaceFullPath")?),
        }))
    }
}

impl HeaderModifier {
    fn decode(fields: &mut Fields<'_>, key: &str) -> Result<Self, Fault> {
        let mut block = fields.required_map(key)?;
        let mut pairs = |key| {
            let mut pairs = Vec::new();
            for mut one in block.maps(key)? {
                pairs.push((one.required_text("name")?.into(), text(&mut one, "value")?));
            }
            Ok::<Box<[_]>, Fault>(pairs.into())
        };
        let (set, add) = (pairs("set")?, pairs("add")?);
        let remove = block.texts("remove")?.into_iter().map(|(name, _)| Arc::from(name)).collect();
        Ok(Self { set, add, remove })
    }
}
