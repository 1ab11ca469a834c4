//! Plain text for people: no colours, lines of about a hundred characters, and blocks to copy.

use std::collections::BTreeSet;

use crate::cli::terminal::printable;

/// Where lines end, unless a word is longer.
const WIDTH: usize = 100;

/// Where the values of a form stand.
const COLUMN: usize = 30;

/// A text that grows.
#[derive(Default)]
pub(super) struct Sheet {
    text: String,
    last: Option<Part>,
    said: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Heading,
    Paragraph,
    Field,
    Item,
    Block,
}

impl Sheet {
    /// All of it.
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// What the sheet, or a part of it, is about.
    pub(super) fn heading(&mut self, text: &str) {
        self.part(Part::Heading);
        self.line("", text);
        self.line("", &"-".repeat(text.chars().count()));
    }

    /// A paragraph.
    pub(super) fn say(&mut self, text: &str) {
        self.part(Part::Paragraph);
        self.wrap("", "", text);
    }

    /// Something that can't work as it is configured.
    pub(super) fn problem(&mut self, text: &str) {
        self.part(Part::Paragraph);
        self.wrap("PROBLEM: ", "  ", text);
    }

    /// One field of a form, and what to enter; several values stand below one another.
    pub(super) fn field<T: AsRef<str>>(&mut self, label: &str, values: &[T]) {
        self.part(Part::Field);
        let mut first = format!("  {label:<width$}", width = COLUMN - 2);
        if !first.ends_with(' ') {
            first.push_str("  ");
        }
        let rest = " ".repeat(COLUMN);
        for value in values {
            self.wrap(&first, &rest, value.as_ref());
            first.clone_from(&rest);
        }
    }

    /// One of several remarks. What was said is not said again.
    pub(super) fn item(&mut self, text: &str) {
        if self.said.insert(text.to_owned()) {
            self.part(Part::Item);
            self.wrap("- ", "  ", text);
        }
    }

    /// Something to copy as a whole.
    pub(super) fn block<T: AsRef<str>>(&mut self, lines: &[T]) {
        self.part(Part::Block);
        for line in lines {
            self.line("    ", line.as_ref());
        }
    }

    /// Fields and remarks that follow one another belong together; everything else stands apart.
    fn part(&mut self, part: Part) {
        let together = matches!(part, Part::Field | Part::Item) && self.last == Some(part);
        if self.last.is_some() && !together {
            self.text.push('\n');
        }
        self.last = Some(part);
    }

    fn wrap(&mut self, first: &str, rest: &str, text: &str) {
        let mut indent = first;
        let mut line = String::new();
        let mut length = 0;
        for word in text.split(' ') {
            let word_length = word.chars().count();
            if !line.is_empty() && indent.chars().count() + length + 1 + word_length > WIDTH {
                self.line(indent, &line);
                indent = rest;
                line.clear();
                length = 0;
            }
            if !line.is_empty() {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += word_length;
        }
        self.line(indent, &line);
    }

    /// No value of the configuration may end a line, or move a terminal's cursor.
    fn line(&mut self, indent: &str, text: &str) {
        self.text.push_str(indent);
        self.text.push_str(&printable(text));
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Sheet)) -> String {
        let mut sheet = Sheet::default();
        write(&mut sheet);
        sheet.finish()
    }

    #[test]
    fn long_text_is_wrapped_and_a_long_word_is_not_broken() {
        let word = "x".repeat(120);
        let text = written(|sheet| sheet.item(&format!("{} {word} end", "word ".repeat(30).trim_end())));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH || line.contains(&word)), "{text}");
        assert!(lines[0].starts_with("- word") && lines[1].starts_with("  word"), "{text}");
        assert_eq!(lines[2..], [format!("  {word}"), "  end".to_owned()]);
    }

    #[test]
    fn values_of_one_field_stand_below_one_another() {
        let text = written(|sheet| sheet.field("Grant type", &["one", "two"]));
        assert_eq!(text, format!("  {:<28}one\n{:30}two\n", "Grant type", ""));
    }

    #[test]
    fn a_remark_is_made_once() {
        let text = written(|sheet| {
            sheet.item("one");
            sheet.say("between");
            sheet.item("one");
        });
        assert_eq!(text, "- one\n\nbetween\n");
    }

    #[test]
    fn a_value_ends_no_line_and_reaches_no_terminal() {
        let text = written(|sheet| sheet.block(&["a\nb\u{1b}[2J"]));
        assert_eq!(text, "    a\\u{a}b\\u{1b}[2J\n");
    }
}
