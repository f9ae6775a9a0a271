//! How little of an input is needed: parts are left out, large ones first, for as long as it fails in the same way. Used
//! by `main` before an input is kept.

/// Attempts at most: a second or so for a panic, some minutes for what is slow.
const MAX_ATTEMPTS: usize = 3_000;

/// A smaller input for which `fails` holds; `input` itself where none is found.
pub fn minimise(input: &[u8], mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let mut attempts = 0;
    loop {
        let before = smallest.len();
        // Lines are what a text is made of; bytes, what is left.
        for by_line in [true, false] {
            let mut size = pieces(&smallest, by_line).len() / 2;
            while size > 0 {
                let mut at = 0;
                loop {
                    let cuts = pieces(&smallest, by_line);
                    if at >= cuts.len() || attempts >= MAX_ATTEMPTS {
                        break;
                    }
                    let until = cuts.get(at + size).copied().unwrap_or(smallest.len());
                    let candidate = [&smallest[..cuts[at]], &smallest[until..]].concat();
                    attempts += 1;
                    if fails(&candidate) {
                        smallest = candidate;
                    } else {
                        at += size;
                    }
                }
                size /= 2;
            }
        }
        if smallest.len() == before || attempts >= MAX_ATTEMPTS {
            return smallest;
        }
    }
}

/// Where each line, or each byte, begins.
fn pieces(input: &[u8], by_line: bool) -> Vec<usize> {
    let starts = |at: &usize| !by_line || *at == 0 || input[at - 1] == b'\n';
    (0..input.len()).filter(starts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_left() {
        let input = b"one\ntwo\nthree\nfour\nfive\n";
        let smallest = minimise(input, |candidate| {
            let text = String::from_utf8_lossy(candidate);
            text.contains("th") && text.contains('v')
        });
        assert_eq!(smallest, b"thv");
    }
}
