//! Frames of a user-space stack → JSON.

use super::encode::{Inner, Out, Text, Value};
use crate::model::StackFrame;

/// Innermost first.
#[derive(Clone, Copy, Debug)]
pub struct StackFrames<'a>(pub &'a [StackFrame]);

impl Value for StackFrames<'_> {
    const JSON: &'static str = "array of objects";
    fn write(&self, out: &mut Out) {
        fn text(s: &Option<String>) -> Option<Text<'_>> {
            s.as_ref().map(|s| Text(s.as_bytes()))
        }
        out.raw(b"[");
        for (i, frame) in self.0.iter().enumerate() {
            if i > 0 {
                out.raw(b",");
            }
            let mut inner = Inner::new(out);
            inner.field("function", text(&frame.function));
            inner.field("module", text(&frame.module));
            inner.field("offset", frame.offset);
            inner.field("file", text(&frame.file));
            inner.field("line", frame.line);
            inner.end();
        }
        out.raw(b"]");
    }
}
