//! Rewrites, redirects and direct responses.

use crate::crd::fields::{Fault, Fields};
use crate::crd::regex::part_regex;
use crate::program::{DirectResponse, Redirect, RedirectPath, RedirectPort, Rewrite, Substitution, UriRewrite};

/// Istio's default for a redirect: moved permanently.
const MOVED: u16 = 301;

pub(super) fn rewrite(fields: &mut Fields<'_>) -> Result<Rewrite, Fault> {
    let uri = fields.text("uri")?.filter(|text| !text.is_empty()).map(|text| UriRewrite::Text(text.into()));
    let authority = fields.text("authority")?.filter(|text| !text.is_empty()).map(Into::into);
    let by_regex = match fields.map("uriRegexRewrite")? {
        None => None,
        Some(mut block) => {
            let mark = block.mark;
            let pattern = block.required_text("match")?;
            let regex = part_regex(pattern).map_err(|why| Fault::new(mark, block.path_of("match"), why))?;
            Some(UriRewrite::Regex(regex, Substitution::new(block.text("rewrite")?.unwrap_or_default())))
        }
    };
    if uri.is_some() && by_regex.is_some() {
        return Err(Fault::new(fields.mark, fields.path.clone(), "only one of uri and uriRegexRewrite may be given"));
    }
    Ok(Rewrite { uri: uri.or(by_regex), authority })
}

pub(super) fn redirect(fields: &mut Fields<'_>) -> Result<Redirect, Fault> {
    let text = |fields: &mut Fields<'_>, key| {
        let text: Option<Box<str>> = fields.text(key)?.filter(|text| !text.is_empty()).map(Into::into);
        Ok::<_, Fault>(text)
    };
    let path = match (text(fields, "uri")?, text(fields, "prefixRewrite")?) {
        (None, None) => RedirectPath::Kept,
        (Some(whole), None) => RedirectPath::Whole(whole),
        (None, Some(prefix)) => RedirectPath::Prefix(prefix),
        (Some(_), Some(_)) => {
            let message = "only one of uri and prefixRewrite may be given";
            return Err(Fault::new(fields.mark, fields.path.clone(), message));
        }
    };
    let port = match (fields.integer("port", 0..=65535)?, fields.text("derivePort")?) {
        (Some(number @ 1..), _) => RedirectPort::Number(number as u16),
        (_, Some("FROM_PROTOCOL_DEFAULT")) => RedirectPort::OfProtocol,
        (_, Some("FROM_REQUEST_PORT")) => RedirectPort::OfRequest,
        (_, None | Some("")) => RedirectPort::Unset,
        (_, Some(other)) => {
            let message = format!("`{other}` must be FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT");
            return Err(Fault::new(fields.mark, fields.path_of("derivePort"), message));
        }
    };
    let (authority, scheme) = (text(fields, "authority")?, text(fields, "scheme")?);
    let code = fields.integer("redirectCode", 0..=399)?.filter(|code| *code != 0).map_or(MOVED, |code| code as u16);
    Ok(Redirect { path, authority, scheme, port, code })
}

pub(super) fn direct_response(fields: &mut Fields<'_>) -> Result<DirectResponse, Fault> {
    // Istio lets 600 through.
    let status = fields.integer("status", 200..=600)?;
    let status = status.ok_or_else(|| Fault::new(fields.mark, fields.path_of("status"), "must be given"))?;
    let body = match fields.map("body")? {
        None => Box::default(),
        Some(mut body) => {
            let text = body.text("string")?.map(|text| text.as_bytes().into());
            let bytes = match body.text("bytes")? {
                None => None,
                Some(text) => {
                    Some(base64(text).ok_or_else(|| Fault::new(body.mark, body.path_of("bytes"), "is no base64"))?)
                }
            };
            text.or(bytes).unwrap_or_default()
        }
    };
    Ok(DirectResponse { status: status as u16, body })
}

/// Standard or URL-safe base64, padded or not: what the JSON form of protobuf takes.
fn base64(text: &str) -> Option<Box<[u8]>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        held = (held << 6 | u32::from(value)) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    // A single letter more than whole bytes need says nothing.
    (bits < 6).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_in_both_alphabets() {
        for (text, bytes) in
            [("", &b""[..]), ("aGk=", b"hi"), ("aGk", b"hi"), ("-_8", &[0xfb, 0xff]), ("+/8=", &[0xfb, 0xff])]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["a", "a b", "aGk=a", "é"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }
}
