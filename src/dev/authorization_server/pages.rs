//! The few pages that people see: login, a device's code, and what went wrong.

/// A page for a problem that can't be told to the client by redirecting (RFC 6749 4.1.2.1).
pub(super) fn problem(text: &str) -> String {
    page("400 Bad Request", &format!("<p role=\"alert\">{}</p>", escaped(text)))
}

/// Posts to where it came from, the query included. `problem` is shown above the fields.
pub(super) fn login(user: &str, scopes: &[String], problem: Option<&str>) -> String {
    let scopes: Vec<String> =
        scopes.iter().map(|scope| format!("<li><code>{}</code></li>", escaped(scope))).collect();
    let body = format!(
        "{}<form method=\"post\">{}<p>The application asks for:</p><ul>{}</ul>\
         <button name=\"action\" value=\"login\">Sign in</button> \
         <button name=\"action\" value=\"cancel\" formnovalidate>Cancel</button></form>",
        alert(problem),
        credentials(user),
        scopes.concat(),
    );
    page("Sign in", &body)
}

/// For `/activate`, likewise.
pub(super) fn activate(user_code: &str, problem: Option<&str>) -> String {
    let body = format!(
        "{}<p>Only go on if you have just asked for this on a device that is yours.</p><form method=\"post\">\
         <p><label>Code on the device<br><input name=\"user_code\" value=\"{}\" required></label></p>{}\
         <button name=\"action\" value=\"approve\">Approve</button> \
         <button name=\"action\" value=\"deny\">Deny</button></form>",
        alert(problem),
        escaped(user_code),
        credentials(""),
    );
    page("Connect a device", &body)
}

pub(super) fn done(text: &str) -> String {
    page("Done", &format!("<p role=\"status\">{}</p>", escaped(text)))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:16px/1.5 sans-serif;max-width:32em;margin:3em auto;padding:0 1em}}</style></head>\
         <body><main><h1>{title}</h1>{body}<p>Development authorization server: every password is \
         <code>password</code>.</p></main></body></html>"
    )
}

fn credentials(user: &str) -> String {
    format!(
        "<p><label>Username<br><input name=\"username\" autocomplete=\"username\" value=\"{}\" required></label></p>\
         <p><label>Password<br><input name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\
         </label></p>",
        escaped(user)
    )
}

fn alert(problem: Option<&str>) -> String {
    problem.map(|text| format!("<p role=\"alert\">{}</p>", escaped(text))).unwrap_or_default()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_brought_can_end_no_attribute_and_begin_no_element() {
        let page = login("\"><script>", &["<b>".into()], Some("'&"));
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;") && page.contains("&#39;&amp;"), "{page}");
    }
}
