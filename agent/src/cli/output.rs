//! What a command prints, and how texts of users are shown on a terminal. Used by every command.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use anyhow::{Context, Result};

/// Prints it all. A reader that has seen enough (`| head`) is none of the command's business.
///
/// # Errors
/// When it cannot be written, as on a full disk.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print"),
    }
}

/// A text of users as part of a line: its line's ends are spaces, and what would steer a terminal, or turn the order
/// of what is read, is written down instead.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => shown.push(' '),
            c if steers(c) => write!(shown, "{}", c.escape_unicode()).expect("a string takes everything"),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, those that override the direction of text, and those that nobody sees.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn texts_of_users_are_lines_that_steer_nothing() {
        assert_eq!(plain("größer → ✔"), "größer → ✔");
        assert_eq!(plain("a\nb\tc"), "a b c");
        assert_eq!(plain("we\u{200b}b\u{feff}\u{ad}"), r"we\u{200b}b\u{feff}\u{ad}");
        assert_eq!(plain("\u{1b}[31mred\u{7}\u{9b}0m\u{202e}x"), r"\u{1b}[31mred\u{7}\u{9b}0m\u{202e}x");
    }
}
