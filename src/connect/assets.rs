//! What pages are made of besides themselves. A name carries its content's digest, so that a browser may keep it forever.

use crate::secret::Digest;

const STYLE: &str = include_str!("../../templates/connect/style.css");
const ICON: &str = include_str!("../../templates/connect/icon.svg");

/// Where they are.
pub(super) struct Assets {
    pub(super) style: String,
    pub(super) icon: String,
}

/// One of them.
pub(super) struct Asset {
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

impl Assets {
    pub(super) fn new() -> Self {
        Self { style: path("page", STYLE, "css"), icon: path("icon", ICON, "svg") }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    pub(super) fn find(&self, path: &str) -> Option<Asset> {
        if path == self.style {
            Some(Asset { content_type: "text/css; charset=utf-8", text: STYLE })
        } else if path == self.icon {
            Some(Asset { content_type: "image/svg+xml", text: ICON })
        } else {
            None
        }
    }
}

fn path(name: &str, text: &str, extension: &str) -> String {
    let digest: String = Digest::of(text.as_bytes()).to_string().chars().take(16).collect();
    format!("/assets/{name}-{digest}.{extension}")
}
