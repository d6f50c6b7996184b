//! Names that come from outside, made safe for a terminal and for JSON.

/// Is the character better shown by its number? Control characters could steer a terminal, the others turn text around.
fn unsafe_char(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Append `bytes` for a terminal: control characters and bytes that are not UTF-8 as `\xNN`.
pub fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let byte = |out: &mut Vec<u8>, b: u8| {
        out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
    };
    for chunk in bytes.utf8_chunks() {
        let mut utf8 = [0; 4];
        for c in chunk.valid().chars() {
            let encoded = c.encode_utf8(&mut utf8).as_bytes();
            if unsafe_char(c) {
                encoded.iter().for_each(|&b| byte(out, b));
            } else {
                out.extend_from_slice(encoded);
            }
        }
        chunk.invalid().iter().for_each(|&b| byte(out, b));
    }
}

/// Append `bytes` as a JSON string with its quotes: control characters and bytes that are not UTF-8 as `\u00NN`.
#[inline]
pub fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    if bytes.iter().all(|&b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\') {
        out.extend_from_slice(bytes);
    } else {
        json_slow(out, bytes);
    }
    out.push(b'"');
}

#[cold]
fn json_slow(out: &mut Vec<u8>, bytes: &[u8]) {
    let number = |out: &mut Vec<u8>, n: u32| {
        out.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            out.push(HEX[(n >> shift & 15) as usize]);
        }
    };
    for chunk in bytes.utf8_chunks() {
        let mut utf8 = [0; 4];
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                // Those characters are all below 0x10000: one code unit.
                c if unsafe_char(c) => number(out, u32::from(c)),
                c => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|&b| number(out, u32::from(b)));
    }
}

#[cfg(test)]
mod tests {
    fn of(f: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        f(&mut out, bytes);
        String::from_utf8(out).expect("both make UTF-8")
    }

    #[test]
    fn ordinary_names_stay() {
        assert_eq!(of(super::text, b"kworker/0:1"), "kworker/0:1");
        assert_eq!(of(super::json, "größe".as_bytes()), "\"größe\"");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(of(super::text, b"\x1b[2J\n"), "\\x1b[2J\\x0a");
        assert_eq!(of(super::text, "a\u{9b}b\u{202e}".as_bytes()), "a\\xc2\\x9bb\\xe2\\x80\\xae");
        assert_eq!(of(super::text, b"\xff!"), "\\xff!");
    }

    #[test]
    fn a_name_cannot_end_the_string() {
        assert_eq!(of(super::json, b"a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(of(super::json, b"\x1b\n\x7f"), r#""\u001b\u000a\u007f""#);
        assert_eq!(of(super::json, b"\xff\xc3"), r#""\u00ff\u00c3""#);
        let parsed: String = serde_json::from_str(&of(super::json, b"\x00\xfe\"\\\xe2\x80\xae")).expect("valid JSON");
        assert_eq!(parsed, "\0\u{fe}\"\\\u{202e}");
    }
}
