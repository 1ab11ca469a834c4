//! Values as other languages write them.

pub(super) use crate::model::sql_text;

/// An identifier of Snowflake's SQL, letter by letter as it is: without quotes it would be taken in upper case.
pub(super) fn sql_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// One word of a shell's command line.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_keeps_its_case_spaces_and_quotes() {
        assert_eq!(sql_name("data team"), "\"data team\"");
        assert_eq!(sql_name("say \"hi\""), "\"say \"\"hi\"\"\"");
    }

    #[test]
    fn a_word_is_quoted_for_the_shell_where_it_must_be() {
        assert_eq!(shell_word("alice@example.com"), "alice@example.com");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_word(""), "''");
    }
}
