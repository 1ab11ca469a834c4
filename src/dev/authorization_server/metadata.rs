//! The two metadata documents (OpenID Connect Discovery 1.0, RFC 8414); they say the same.

use hyper::StatusCode;
use serde_json::json;

use super::reply::Reply;
use super::scopes::OPENID_SCOPES;
use super::settings::GRANT_TYPES;
use super::state::State;

/// `issuer` is given by itself, since a fault can have the document name another one than its endpoints show.
pub(super) fn answer(state: &State, server: &str, issuer: &str) -> Reply {
    let base = state.issuer(server);
    let created = state.servers.get(server).map(|server| server.scopes.clone()).unwrap_or_default();
    let scopes: Vec<String> = OPENID_SCOPES.iter().map(|scope| (*scope).to_owned()).chain(created).collect();
    let methods = ["client_secret_basic", "client_secret_post"];
    let document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{base}/v1/authorize"),
        "token_endpoint": format!("{base}/v1/token"),
        "jwks_uri": format!("{base}/v1/keys"),
        "introspection_endpoint": format!("{base}/v1/introspect"),
        "revocation_endpoint": format!("{base}/v1/revoke"),
        "device_authorization_endpoint": format!("{base}/v1/device/authorize"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": GRANT_TYPES,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": scopes,
        "claims_supported": [
            "ver", "jti", "iss", "aud", "iat", "exp", "cid", "uid", "scp", "sub", "auth_time", "amr", "idp", "nonce",
            "at_hash", "name", "preferred_username", "email", "email_verified",
        ],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "authorization_response_iss_parameter_supported": true,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
    });
    Reply::json(StatusCode::OK, &document).with("cache-control", "max-age=86400, must-revalidate")
}
