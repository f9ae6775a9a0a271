//! Which trace a request belongs to, by the headers that it came with (W3C, B3 in one header and in several), and the
//! same told onwards. Used by [`super`].

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// What a request came with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    /// Trace and span; `None`: a trace begins here.
    pub(super) ids: Option<(u128, u64)>,
    /// Whether it is to be recorded, where somebody has decided that.
    pub(super) sampled: Option<bool>,
}

/// What the next one is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) parent: Option<u64>,
    pub(super) sampled: bool,
}

/// What the headers say; W3C's come before B3's. What is malformed says nothing, as both texts demand.
pub(super) fn read(headers: &HeaderMap) -> Incoming {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some((ids, sampled)) = text(&TRACEPARENT).and_then(traceparent) {
        return Incoming { ids: Some(ids), sampled: Some(sampled) };
    }
    if let Some(single) = text(&B3) {
        return b3(single);
    }
    let trace = text(&B3_TRACE).and_then(trace_id);
    let sampled = match (text(&B3_FLAGS), text(&B3_SAMPLED)) {
        (Some("1"), _) => Some(true),
        (_, sampled) => sampled.and_then(decision),
    };
    Incoming { ids: trace.zip(text(&B3_SPAN).and_then(span_id)), sampled }
}

/// Tells the next one, in each of the forms in which it was told, and in W3C's.
pub(super) fn write(headers: &mut HeaderMap, context: &Outgoing) {
    let Outgoing { trace, span, parent, sampled } = *context;
    let flag = u128::from(sampled);
    let span = u128::from(span);
    headers.insert(TRACEPARENT, id(&[(0, 2), (trace, 32), (span, 16), (flag, 2)]));
    if headers.contains_key(&B3) {
        let known = [(trace, 32), (span, 16), (flag, 1), (parent.unwrap_or_default().into(), 16)];
        headers.insert(B3, id(&known[..if parent.is_some() { 4 } else { 3 }]));
    }
    if headers.contains_key(&B3_TRACE) || headers.contains_key(&B3_SAMPLED) {
        headers.insert(B3_TRACE, id(&[(trace, 32)]));
        headers.insert(B3_SPAN, id(&[(span, 16)]));
        headers.insert(B3_SAMPLED, id(&[(flag, 1)]));
        match parent {
            Some(parent) => headers.insert(B3_PARENT, id(&[(parent.into(), 16)])),
            None => headers.remove(&B3_PARENT),
        };
    }
}

/// The longest that [`id`] is asked for: `00-TRACE-SPAN-FLAGS` or `TRACE-SPAN-DECISION-PARENT`, with room.
const LONGEST: usize = 72;

/// Numbers in hexadecimal, each with so many digits, with dashes between them. Without `std::fmt`, since every request
/// has some.
pub(super) fn id(parts: &[(u128, usize)]) -> HeaderValue {
    let mut text = [b'-'; LONGEST];
    let mut len = 0;
    for (n, (number, digits)) in parts.iter().enumerate() {
        len += usize::from(n > 0);
        let bytes = number.to_be_bytes();
        for (digit, to) in text[len..len + digits].iter_mut().rev().enumerate() {
            let byte = bytes[bytes.len() - 1 - digit / 2];
            *to = b"0123456789abcdef"[usize::from(if digit % 2 == 0 { byte & 0xf } else { byte >> 4 })];
        }
        len += digits;
    }
    HeaderValue::from_bytes(&text[..len]).expect("digits and dashes")
}

/// `00-TRACE-SPAN-FLAGS`; later versions may say more after that.
fn traceparent(text: &str) -> Option<((u128, u64), bool)> {
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_known = version == "00" && parts.next().is_none();
    let is_later = version.len() == 2 && version != "00" && version != "ff" && hex(version).is_some();
    if !(is_known || is_later) || trace.len() != 32 || flags.len() != 2 {
        return None;
    }
    Some(((trace_id(trace)?, span_id(span)?), hex(flags)? & 1 == 1))
}

/// `TRACE-SPAN[-DECISION[-PARENT]]`, or the decision alone.
fn b3(text: &str) -> Incoming {
    let mut parts = text.trim().split('-');
    let (first, span, sampled) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match span {
        None => Incoming { ids: None, sampled: decision(first) },
        Some(span) => Incoming { ids: trace_id(first).zip(span_id(span)), sampled: sampled.and_then(decision) },
    }
}

fn decision(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// 64 or 128 bits, never zero.
fn trace_id(text: &str) -> Option<u128> {
    matches!(text.len(), 16 | 32).then(|| hex(text))?.filter(|id| *id != 0)
}

fn span_id(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| hex(text))?.map(|id| id as u64).filter(|id| *id != 0)
}

fn hex(text: &str) -> Option<u128> {
    // The parser of numbers takes a sign, too.
    text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const IDS: (u128, u64) = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331);

    #[test]
    fn every_form_is_read() {
        let known = |sampled| Incoming { ids: Some(IDS), sampled };
        let w3c = |value| read(&headers(&[("traceparent", value)]));
        assert_eq!(w3c("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), known(Some(true)));
        assert_eq!(w3c("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"), known(Some(false)));
        assert_eq!(w3c("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"), known(Some(true)));
        let single = |value| read(&headers(&[("b3", value)]));
        assert_eq!(single("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-05e3ac9a4f6e3b90"), known(Some(true)));
        assert_eq!(single("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"), known(None));
        assert_eq!(single("0"), Incoming { ids: None, sampled: Some(false) });
        let several = [("x-b3-traceid", TRACE), ("x-b3-spanid", "b7ad6b7169203331"), ("x-b3-sampled", "0")];
        assert_eq!(read(&headers(&several)), known(Some(false)));
        assert_eq!(read(&headers(&[("x-b3-flags", "1")])).sampled, Some(true));
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for value in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333z-01",
        ] {
            assert_eq!(read(&headers(&[("traceparent", value)])), Incoming::default(), "{value}");
        }
        assert_eq!(read(&headers(&[("b3", "x-y-z")])), Incoming::default());
    }

    #[test]
    fn the_next_one_is_told_in_the_forms_that_came() {
        let context = Outgoing { trace: IDS.0, span: 1, parent: Some(IDS.1), sampled: true };
        let mut plain = HeaderMap::new();
        write(&mut plain, &context);
        assert_eq!(plain["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");
        assert_eq!(plain.len(), 1);
        let mut both = headers(&[("b3", "1"), ("x-b3-traceid", TRACE), ("tracestate", "vendor=1")]);
        write(&mut both, &context);
        assert_eq!(both["b3"], "0af7651916cd43dd8448eb211c80319c-0000000000000001-1-b7ad6b7169203331");
        assert_eq!(
            (&both["x-b3-spanid"], &both["x-b3-parentspanid"]),
            (&"0000000000000001".parse().unwrap(), &"b7ad6b7169203331".parse().unwrap())
        );
        assert_eq!(both["tracestate"], "vendor=1");
        for form in ["traceparent", "b3", "x-b3"] {
            let one: HeaderMap = both
                .iter()
                .filter(|(name, _)| name.as_str().starts_with(form))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect();
            assert_eq!(read(&one), Incoming { ids: Some((IDS.0, 1)), sampled: Some(true) }, "{form}");
        }
    }
}
