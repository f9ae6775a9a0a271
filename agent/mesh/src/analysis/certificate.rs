//! Whether a Secret holds a certificate that a gateway can present: PEM, X.509, within its time. Called for each
//! `credentialName`. Only the few fields that say so are read; the handshake checks the rest.

use std::fmt::Write as _;

use super::tree::Tree;
use crate::crd::Node;

/// Names of the certificate and of its key: Kubernetes' own, then Istio's older ones.
const KEYS: [(&str, &str); 2] = [("tls.crt", "tls.key"), ("cert", "key")];
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Checks it at `now`, in seconds since 1970.
///
/// # Errors
/// With what is wrong, in a sentence's end.
pub(super) fn check(secret: &Node, now: u64) -> Result<(), String> {
    let data = |key: &str| {
        let of = |map: &str| secret.fields(map).iter().find(|entry| &*entry.key == key)?.node.text();
        match of("stringData") {
            Some(text) => Some(text.as_bytes().to_vec()),
            None => decode(of("data")?),
        }
    };
    let found = KEYS.iter().find_map(|(certificate, key)| Some((data(certificate)?, data(key)?)));
    let Some((certificate, key)) = found else {
        return Err("it lacks tls.crt or tls.key".to_owned());
    };
    if certificate.is_empty() || key.is_empty() {
        return Err("tls.crt or tls.key is empty".to_owned());
    }
    let text = String::from_utf8(certificate).map_err(|_| "the certificate is no PEM".to_owned())?;
    let mut rest = text.as_str();
    let mut any = false;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, next) = after.split_once(END).ok_or("the certificate is cut off")?;
        let der = decode(body).ok_or("the certificate is no base64")?;
        let (from, until) = validity(&der).ok_or("the certificate is no X.509")?;
        if now < from {
            return Err("the certificate is not valid yet".to_owned());
        }
        if now > until {
            return Err(format!("the certificate has expired ({})", day(until)));
        }
        any = true;
        rest = next;
    }
    if any { Ok(()) } else { Err("the certificate is no PEM".to_owned()) }
}

/// Base64 with line breaks.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bits = 0_u32;
    let mut held = 0;
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

/// One element of DER: its tag, its content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length > 0x80 {
        // Four bytes of length are 4 GiB.
        let bytes = length - 0x80;
        if bytes > 4 || rest.len() < bytes {
            return None;
        }
        length = rest[..bytes].iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        rest = &rest[bytes..];
    }
    (rest.len() >= length).then(|| (*tag, &rest[..length], &rest[length..]))
}

/// From and until when a certificate is valid.
fn validity(der: &[u8]) -> Option<(u64, u64)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let content = |der| element(der).filter(|(tag, ..)| *tag == SEQUENCE).map(|(_, content, _)| content);
    let mut rest = content(content(der)?)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let times = content(rest)?;
    let (tag, from, rest) = element(times)?;
    let from = time(tag, from)?;
    let (tag, until, _) = element(rest)?;
    Some((from, time(tag, until)?))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    const UTC: u8 = 0x17;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(if tag == UTC { 2 } else { 4 })?;
    let mut year: u64 = year.parse().ok()?;
    if tag == UTC {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let part = |at: usize| rest.get(at..at + 2).and_then(|digits| digits.parse::<u64>().ok());
    let (month, day_of_month) = (part(0)?, part(2)?);
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    let days = days_since_1970(year, month, day_of_month)?;
    Some(days * 86_400 + seconds)
}

/// Gregorian, from March on so that the leap day is the last of its year.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // 1 January 1970, counted in the same way.
    days.checked_sub(719_468)
}

/// `2024-02-29`
fn day(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let (year, shown) = (era * 400 + year_of_era + u64::from(month > 9), if month > 9 { month - 9 } else { month + 3 });
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{year:04}-{shown:02}-{:02}", of_year - (153 * month + 2) / 5 + 1);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0x17, b"700101000000Z"), Some(0));
        assert_eq!(time(0x18, b"20240229120000Z"), Some(1_709_208_000));
        assert_eq!(time(0x17, b"241301000000Z"), None);
        assert_eq!(time(0x17, b"24"), None);
        for (seconds, text) in [(0, "1970-01-01"), (1_709_208_000, "2024-02-29"), (4_102_444_799, "2099-12-31")] {
            assert_eq!(day(seconds), text);
        }
    }

    #[test]
    fn what_is_no_certificate_is_no_panic() {
        for der in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x05\x30\x03\xa0\x01\x00", &[0x30; 64]] {
            assert_eq!(validity(der), None);
        }
        assert_eq!(decode("aGk="), Some(b"hi".to_vec()));
        assert_eq!(decode("a*"), None);
    }
}
