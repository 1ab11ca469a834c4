//! What a browser does, as far as the page can tell: cookies, forms, and no redirect followed unasked.

use std::collections::BTreeMap;

use bursar::tasks::Tasks;
use url::form_urlencoded::Serializer;

use super::http;

pub(crate) type Page = http::Answer;

pub(crate) struct Browser {
    origin: String,
    cookies: BTreeMap<String, String>,
    tasks: Tasks,
}

impl Browser {
    /// Nobody has used it yet.
    pub(crate) fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), cookies: BTreeMap::new(), tasks: Tasks::new() }
    }

    pub(crate) async fn get(&mut self, target: &str) -> Page {
        self.send("GET", target, &[], "").await
    }

    /// A form of the page that is shown.
    pub(crate) async fn post(&mut self, target: &str, form: &[(&str, &str)]) -> Page {
        let origin = self.origin.clone();
        self.post_with(target, form, &[("origin", &origin), ("sec-fetch-site", "same-origin")]).await
    }

    /// A form of whatever page.
    pub(crate) async fn post_with(
        &mut self,
        target: &str,
        form: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Page {
        let body = Serializer::new(String::new()).extend_pairs(form).finish();
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/x-www-form-urlencoded"));
        self.send("POST", target, &headers, &body).await
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Page {
        let url =
            if target.starts_with('/') { format!("{}{target}", self.origin) } else { target.to_owned() };
        let ours = url.starts_with(&self.origin);
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut headers = headers.to_vec();
        if ours && !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        let page = http::send(&self.tasks, method, &url, &headers, body).await.unwrap();
        if ours {
            self.keep(&page);
        }
        page
    }

    fn keep(&mut self, page: &Page) {
        for cookie in page.headers.get_all("set-cookie") {
            let (cookie, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = cookie.split_once('=').unwrap();
            if attributes.contains("Max-Age=0;") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    pub(crate) fn cookies(&self) -> BTreeMap<String, String> {
        self.cookies.clone()
    }

    /// Has these cookies and no others.
    pub(crate) fn restore(&mut self, cookies: BTreeMap<String, String>) {
        self.cookies = cookies;
    }
}

impl Page {
    pub(crate) fn location(&self) -> String {
        self.header("location").to_owned()
    }

    /// What the page's forms carry.
    pub(crate) fn form_token(&self) -> String {
        let found = self.body.split("name=\"csrf\" value=\"").nth(1);
        found.unwrap_or_else(|| panic!("no form in {}", self.body)).split('"').next().unwrap().to_owned()
    }
}
