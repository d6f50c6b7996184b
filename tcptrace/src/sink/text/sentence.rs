//! Sentences with names from outside, made safe for a terminal.

use super::duration;
use crate::{model::Piece, sink::escape};

/// Text from outside, safe for a terminal.
pub fn outside(text: &[u8]) -> String {
    let mut out = Vec::new();
    escape::text(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

/// A sentence.
pub fn sentence(said: &[Piece]) -> String {
    said.iter().fold(String::new(), |mut text, piece| {
        match piece {
            Piece::Text(words) => text.push_str(words),
            Piece::Name(name) => text.push_str(&outside(name)),
            Piece::Us(us) => duration(&mut text, us * 1000),
        }
        text
    })
}
