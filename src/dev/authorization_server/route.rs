//! From a path to the endpoint that it names.

/// What is asked for, and of which authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// An endpoint of one authorization server, by its id.
    Server(Endpoint, String),
    /// The page on which a user enters a device's code.
    Activate,
    /// Below the control URL, without the slash.
    Control(String),
}

/// One kind of request, as faults, statistics and rate limits count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    Token,
    Keys,
    Introspect,
    Revoke,
    Discovery,
    Authorize,
    Device,
    Activate,
}

impl Endpoint {
    pub(super) const ALL: [Self; 8] = [
        Self::Token,
        Self::Keys,
        Self::Introspect,
        Self::Revoke,
        Self::Discovery,
        Self::Authorize,
        Self::Device,
        Self::Activate,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Keys => "keys",
            Self::Introspect => "introspect",
            Self::Revoke => "revoke",
            Self::Discovery => "discovery",
            Self::Authorize => "authorize",
            Self::Device => "device",
            Self::Activate => "activate",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.name() == name)
    }

    /// Okta limits neither keys nor metadata.
    pub(super) fn is_rate_limited(self) -> bool {
        match self {
            Self::Token | Self::Introspect | Self::Revoke | Self::Authorize | Self::Device => true,
            Self::Keys | Self::Discovery | Self::Activate => false,
        }
    }
}

impl Route {
    pub(super) fn parse(path: &str) -> Option<Self> {
        if path == "/activate" {
            return Some(Self::Activate);
        }
        if let Some(rest) = path.strip_prefix("/control") {
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
            return Some(Self::Control(rest.to_owned()));
        }
        if let Some(server) = path.strip_prefix("/.well-known/oauth-authorization-server/oauth2/") {
            return Some(Self::Server(Endpoint::Discovery, server.to_owned()));
        }
        let (server, endpoint) = path.strip_prefix("/oauth2/")?.split_once('/')?;
        let endpoint = match endpoint {
            "v1/token" => Endpoint::Token,
            "v1/keys" => Endpoint::Keys,
            "v1/introspect" => Endpoint::Introspect,
            "v1/revoke" => Endpoint::Revoke,
            "v1/authorize" => Endpoint::Authorize,
            "v1/device/authorize" => Endpoint::Device,
            ".well-known/openid-configuration" | ".well-known/oauth-authorization-server" => {
                Endpoint::Discovery
            }
            _ => return None,
        };
        Some(Self::Server(endpoint, server.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_metadata_path_name_the_same() {
        let route = Some(Route::Server(Endpoint::Discovery, "ausx".into()));
        assert_eq!(Route::parse("/oauth2/ausx/.well-known/openid-configuration"), route);
        assert_eq!(Route::parse("/oauth2/ausx/.well-known/oauth-authorization-server"), route);
        assert_eq!(Route::parse("/.well-known/oauth-authorization-server/oauth2/ausx"), route);
    }

    #[test]
    fn what_is_not_there_is_none() {
        for path in
            ["/", "/oauth2/v1/token", "/oauth2/ausx/v1/userinfo", "/controls", "/oauth2/ausx/v1/token/"]
        {
            assert_eq!(Route::parse(path), None, "{path}");
        }
        assert_eq!(Route::parse("/control"), Some(Route::Control(String::new())));
        assert_eq!(Route::parse("/control/stats"), Some(Route::Control("stats".into())));
    }
}
