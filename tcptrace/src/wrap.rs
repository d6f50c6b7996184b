//! A text in, lines of a given width out.

/// Break at spaces into lines of at most `width`; a longer word has a line of its own. At least one line.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_full_and_not_longer() {
        let text = "one two three four five";
        assert_eq!(wrap(text, 9), ["one two", "three", "four five"]);
        assert_eq!(wrap(text, 3), ["one", "two", "three", "four", "five"], "a longer word has a line of its own");
        assert_eq!(wrap(text, 40), [text]);
        assert_eq!(wrap("", 40), [""]);
    }
}
