/// A string of Snowflake's SQL: quotes are doubled, and so are backslashes, which escape there.
#[must_use]
pub fn sql_text(text: &str) -> String {
    let mut quoted = String::from("'");
    for character in text.chars() {
        match character {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            _ if character.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_sql_ends_where_it_should() {
        assert_eq!(sql_text("ANALYST"), "'ANALYST'");
        assert_eq!(sql_text("O'BRIEN"), "'O''BRIEN'");
        assert_eq!(sql_text(r"\'); drop"), r"'\\''); drop'");
        assert_eq!(sql_text("a\nb"), r"'a\u000ab'");
    }
}
