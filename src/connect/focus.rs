//! What a user has come for: a service, some of its roles, and where to go afterwards.

use serde::{Deserialize, Serialize};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::connect::form::Fields;
use crate::connect::page::Back;
use crate::connect::terms::Terms;
use crate::model::{RoleName, Service};

/// Names that are configured, and a link that may be followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Focus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) return_to: Option<String>,
}

impl Focus {
    /// Of a link to the page, or a form of it. What is not known is left out.
    pub(super) fn of(fields: &Fields, terms: &Terms) -> Self {
        let service = fields.one("service").and_then(|name| terms.service(name));
        Self::on(service.map(|service| &**service), fields, terms)
    }

    pub(super) fn on(service: Option<&Service>, fields: &Fields, terms: &Terms) -> Self {
        let roles: Vec<String> = service
            .map(|service| roles(service, fields).iter().map(|role| role.as_str().to_owned()).collect())
            .unwrap_or_default();
        let return_to = fields.one("return_to").and_then(|link| terms.link_back(link));
        Self {
            service: service.map(|service| service.name.as_str().to_owned()),
            roles,
            return_to: return_to.map(String::from),
        }
    }

    /// This, at a page of ours.
    pub(super) fn at(&self, path: &str) -> String {
        let mut query = Serializer::new(String::new());
        let pairs = self.service.iter().map(|service| ("service", service));
        let pairs = pairs.chain(self.roles.iter().map(|role| ("role", role)));
        for (name, value) in pairs.chain(self.return_to.iter().map(|link| ("return_to", link))) {
            query.append_pair(name, value);
        }
        let query = query.finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// The link back; with what was connected, if something was.
    pub(super) fn back(&self, connected: Option<&str>) -> Option<Back> {
        let mut url = Url::parse(self.return_to.as_deref()?).ok()?;
        let host = url.host_str()?.to_owned();
        if let Some(service) = connected {
            url.query_pairs_mut().append_pair("connected", service);
        }
        Some(Back { href: url.into(), host })
    }
}

/// Those of a service's roles that are chosen.
pub(super) fn roles(service: &Service, fields: &Fields) -> Vec<RoleName> {
    let chosen: Vec<&str> = fields.all("role").collect();
    service.roles.keys().filter(|role| chosen.contains(&role.as_str())).cloned().collect()
}
