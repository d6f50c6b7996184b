//! Frames of a user-space stack, a line each, below the line that they belong to.

use std::io::Write;

use super::Text;
use crate::{
    model::{Stack, StackFrame},
    sink::escape,
};

/// Blanks before a frame.
const INDENT: usize = 4;

impl<W: Write> Text<W> {
    /// Innermost first.
    pub(super) fn stack(&mut self, stack: &Stack) {
        let width = self.look.width;
        self.out.buffer.extend_from_slice(lines(stack, width, self.look.ascii).as_bytes());
        self.out.line();
    }
}

/// Lines of this width at most.
pub(super) fn lines(stack: &Stack, width: Option<usize>, ascii: bool) -> String {
    let mut out = String::new();
    let ellipsis = if ascii { '.' } else { '…' };
    for frame in &stack.frames {
        let line = " ".repeat(INDENT) + &words(frame);
        match width.filter(|&width| line.chars().count() > width) {
            Some(width) => out.extend(line.chars().take(width.saturating_sub(1)).chain([ellipsis])),
            None => out.push_str(&line),
        }
        out.push('\n');
    }
    out
}

/// `function (module) file:line`, `module+0xoffset`.
fn words(frame: &StackFrame) -> String {
    let mut out = Vec::new();
    let module = frame.module.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
    match (&frame.function, module) {
        (Some(function), module) => {
            escape::text(&mut out, function.as_bytes());
            if let Some(module) = module {
                out.extend_from_slice(b" (");
                escape::text(&mut out, module.as_bytes());
                out.push(b')');
            }
        }
        (None, module) => {
            escape::text(&mut out, module.unwrap_or("?").as_bytes());
            if let Some(offset) = frame.offset {
                out.extend_from_slice(format!("+{offset:#x}").as_bytes());
            }
        }
    }
    if let Some(file) = &frame.file {
        out.push(b' ');
        escape::text(&mut out, file.as_bytes());
        if let Some(line) = frame.line {
            out.extend_from_slice(format!(":{line}").as_bytes());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Stack, StackFrame, lines, words};

    fn text(s: &str) -> Option<String> {
        Some(s.to_owned())
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let whole = StackFrame {
            function: text("app::open"),
            module: text("/usr/bin/app"),
            offset: Some(0x1234),
            file: text("src/net.rs"),
            line: Some(7),
        };
        assert_eq!(words(&whole), "app::open (app) src/net.rs:7");
        let bare = StackFrame { function: None, file: None, line: None, ..whole };
        assert_eq!(words(&bare), "app+0x1234");
        assert_eq!(words(&StackFrame { module: text("[anon]"), ..StackFrame::default() }), "[anon]");
        let hostile = StackFrame { function: text("a\x1b[2J\nb"), ..StackFrame::default() };
        assert_eq!(words(&hostile), "a\\x1b[2J\\x0ab");
    }

    #[test]
    fn lines_fit_the_terminal() {
        let frame = |name: &str| StackFrame { function: text(name), ..StackFrame::default() };
        let stack = Stack { id: 1, frames: vec![frame("connect"), frame("a_long_name_indeed")] };
        assert_eq!(lines(&stack, Some(12), false), "    connect\n    a_long_…\n");
        assert_eq!(lines(&stack, Some(12), true), "    connect\n    a_long_.\n");
        assert_eq!(lines(&stack, None, false), "    connect\n    a_long_name_indeed\n");
    }
}
