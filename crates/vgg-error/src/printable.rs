//! Names from outside in a form that is safe to print.

use std::ffi::OsStr;
use std::fmt::{self, Display, Write as _};

/// Displays a path or another name from outside: control characters, which could change what a terminal
/// shows, are escaped as in JSON (`\u001b`), and bytes that are not UTF-8 as `\xe9`.
///
/// ```
/// use vgg_error::printable;
///
/// assert_eq!(printable("café.jpg").to_string(), "café.jpg");
/// assert_eq!(printable("a\x1b[2Jb\n.jpg").to_string(), "a\\u001b[2Jb\\u000a.jpg");
/// ```
pub fn printable<T: AsRef<OsStr> + ?Sized>(name: &T) -> Printable<'_> {
    Printable(name.as_ref())
}

/// The value of [`printable`].
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(&'a OsStr);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.as_encoded_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match is_unsafe(c) {
                    true => write!(f, "\\u{:04x}", u32::from(c))?,
                    false => f.write_char(c)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// The first `most` characters of a text from outside, and how many were cut.
///
/// ```
/// use vgg_error::shortened;
///
/// assert_eq!(shortened("a long value", 20), "a long value");
/// assert_eq!(shortened("a long value", 6), "a long... (6 more characters)");
/// ```
pub fn shortened(text: &str, most: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => text.into(),
        Some((end, _)) => {
            let more = text[end..].chars().count();
            format!("{}... ({more} more characters)", &text[..end]).into()
        }
    }
}

/// Escapes the control characters of a text of several lines. Line breaks and tabs are kept.
pub fn printable_lines(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => safe.push(c),
            c if is_unsafe(c) => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// Control characters, line separators, and the marks that change the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_others_kept() {
        let cases = [
            ("日本/ö é.jpg", "日本/ö é.jpg"),
            ("a\u{9b}31m", "a\\u009b31m"),
            ("gpj\u{202e}exe", "gpj\\u202eexe"),
            ("\r\0\u{7f}", "\\u000d\\u0000\\u007f"),
        ];
        for (name, shown) in cases {
            assert_eq!(printable(name).to_string(), shown);
        }
        assert_eq!(printable_lines("a\n\tb\x1b\r"), "a\n\tb\\u001b\\u000d");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(printable(OsStr::from_bytes(b"caf\xe9\xe9.jpg")).to_string(), "caf\\xe9\\xe9.jpg");
    }
}
