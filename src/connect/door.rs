//! What a request must be before anything is done for it: meant for this host and, where it changes something, sent by a
//! page of ours.

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use url::Url;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether it names the host that browsers see. Another name for our address (DNS rebinding) would be another origin's
/// page.
pub(super) fn is_for(public_url: &Url, request: &Parts) -> bool {
    let named = single(&request.headers, &HOST);
    let right = |text: &str| authority(public_url, text);
    let target = request.uri.authority();
    named.is_some_and(right) && target.is_none_or(|target| right(target.as_str()))
}

/// Whether a page of ours sent it, by the browser's word: `Origin` or `Sec-Fetch-Site` says so, and neither says otherwise.
pub(super) fn is_from(origin: &str, headers: &HeaderMap) -> bool {
    match (say(headers, &ORIGIN, origin), say(headers, &SEC_FETCH_SITE, "same-origin")) {
        (Word::No, _) | (_, Word::No) | (Word::None, Word::None) => false,
        (Word::Yes, Word::Yes | Word::None) | (Word::None, Word::Yes) => true,
    }
}

/// What a header says.
enum Word {
    None,
    Yes,
    No,
}

fn say(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> Word {
    match single(headers, name) {
        Some(value) if value == wanted => Word::Yes,
        None if !headers.contains_key(name) => Word::None,
        Some(_) | None => Word::No,
    }
}

fn authority(public_url: &Url, text: &str) -> bool {
    if text.contains(['@', '/', '?', '#', '\\']) {
        return false;
    }
    let named = Url::parse(&format!("{}://{text}/", public_url.scheme()));
    named.is_ok_and(|named| named.origin() == public_url.origin())
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn another_host_is_not_this_one() {
        let url = Url::parse("https://bursar.example.com").unwrap();
        let host = |host: &str| is_for(&url, &request("/", &[("host", host)]));
        assert!(host("bursar.example.com") && host("BURSAR.example.com:443"));
        for bad in
            ["evil.example", "bursar.example.com:444", "bursar.example.com@evil", "127.0.0.1", "", "a b"]
        {
            assert!(!host(bad), "{bad}");
        }
        assert!(!is_for(&url, &request("/", &[])));
        assert!(!is_for(
            &url,
            &request("/", &[("host", "bursar.example.com"), ("host", "bursar.example.com")])
        ));
        assert!(!is_for(&url, &request("https://evil.example/", &[("host", "bursar.example.com")])));
        let local = Url::parse("http://127.0.0.1:8085").unwrap();
        assert!(is_for(&local, &request("/", &[("host", "127.0.0.1:8085")])));
        assert!(!is_for(&local, &request("/", &[("host", "localhost:8085")])));
    }

    #[test]
    fn only_a_page_of_ours_sends_forms() {
        let own = "https://bursar.example.com";
        let sent = |headers: &[(&'static str, &str)]| is_from(own, &request("/", headers).headers);
        assert!(sent(&[("origin", own)]) && sent(&[("sec-fetch-site", "same-origin")]));
        assert!(sent(&[("origin", own), ("sec-fetch-site", "same-origin")]));
        for bad in [
            &[][..],
            &[("origin", "null")],
            &[("origin", "https://evil.example")],
            &[("origin", "https://bursar.example.com.evil.example")],
            &[("origin", own), ("origin", own)],
            &[("origin", own), ("sec-fetch-site", "cross-site")],
            &[("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!sent(bad), "{bad:?}");
        }
    }
}
