//! Every key of the configuration, for the schema; a test holds this list and the reader against each other, and the example
//! file against both.

use serde_json::{Map, Value, json};

/// One key.
pub struct Key {
    /// Where: `*` stands for a name that the operator chooses, `[]` for each section of a list.
    pub path: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// What it is for.
    pub about: &'static str,
}

/// What may stand in a key.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// A list of texts.
    Texts,
    /// A number in a range.
    Number(u64, u64),
    /// A time, such as "30s".
    Duration,
    /// A time, or "never".
    OrNever,
    /// A share, such as "75%".
    Percent,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Some of these words.
    Choices(&'static [&'static str]),
}

use Kind::{Choice, Choices, Duration, Flag, Number, OrNever, Percent, Text, Texts};

const fn key(path: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { path, kind, about }
}

/// All of them.
pub const KEYS: &[Key] = &[
    key("socket.path", Text, "The vending socket; inherited from systemd if that listens there."),
    key("socket.mode", Text, "Its mode, in octal."),
    key("socket.group", Text, "Its group; we must be a member."),
    key("socket.max_connections", Number(1, 100_000), "Connections in all; more are answered 429."),
    key("socket.max_connections_per_uid", Number(1, 100_000), "Connections of one uid."),
    key("socket.request_timeout", Duration, "How long a caller waits at most; the refresh goes on."),
    key("admin.path", Text, "The admin socket, mode 0600: whoever opens it may do everything."),
    key("admin.metrics", Text, "Address and port of /metrics, /live and /ready, and nothing else."),
    key("store.url", Text, "sqlite:// and the database file."),
    key("store.key_file", Text, "The key that seals; a bare name may be a systemd credential."),
    key("store.old_key_files", Texts, "Keys that still open what `bursar key rotate` has not sealed anew."),
    key("authorization_servers.*.okta_domain", Text, "With authorization_server_id; or issuer."),
    key("authorization_servers.*.authorization_server_id", Text, "The part of the issuer after /oauth2/."),
    key("authorization_servers.*.issuer", Text, "Any OpenID provider, byte for byte as it names itself."),
    key("authorization_servers.*.client_id", Text, "Our id there."),
    key("authorization_servers.*.client_secret_file", Text, "The file with our secret there."),
    key("authorization_servers.*.client_secret_env", Text, "Or the variable with it."),
    key("authorization_servers.*.private_key_file", Text, "Or a PEM file with our private key."),
    key("authorization_servers.*.private_key_id", Text, "The id (kid) that the server knows the key by."),
    key(
        "authorization_servers.*.client_authentication",
        Choice(&["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]),
        "How we prove who we are; private_key_jwt where a key is given.",
    ),
    key(
        "authorization_servers.*.signing_algorithms",
        Choices(&["RS256", "PS256", "ES256", "EdDSA"]),
        "What access tokens may be signed with.",
    ),
    key("authorization_servers.*.ca_file", Text, "An extra root certificate."),
    key(
        "authorization_servers.*.refresh_token_leeway",
        Duration,
        "How long a rotated-away refresh token still works there.",
    ),
    key("authorization_servers.*.request_timeout", Duration, "How long one request to it may take."),
    key(
        "authorization_servers.*.requests_per_minute",
        Number(1, 1_000_000),
        "The share of its rate limit that this sidecar may use.",
    ),
    key(
        "authorization_servers.*.liveness",
        OrNever,
        "How often it is asked whether grants in use still live (introspection).",
    ),
    key("authorization_servers.*.token_endpoint", Text, "Where there is no discovery; then the others too."),
    key("authorization_servers.*.jwks_uri", Text, "Its keys; needed unless tokens are opaque."),
    key("authorization_servers.*.authorization_endpoint", Text, "Where users sign in."),
    key("authorization_servers.*.introspection_endpoint", Text, "RFC 7662."),
    key("authorization_servers.*.revocation_endpoint", Text, "RFC 7009."),
    key("services.*.authorization_server", Text, "The authorization server's name above."),
    key("services.*.audience", Text, "What `aud` of its tokens must be."),
    key("services.*.scopes", Texts, "Asked for when no role is named; offline_access is added."),
    key("services.*.roles", Texts, "Role R means role_scope with R in it, byte for byte."),
    key("services.*.role_scope", Text, "With {role} in it."),
    key("services.*.user_claim", Text, "The claim that names the user."),
    key("services.*.access_token", Choice(&["jwt", "opaque"]), "Verified, or handed on unread."),
    key(
        "services.*.kind",
        Choice(&["snowflake", "databricks", "netsuite", "generic"]),
        "What its drivers want.",
    ),
    key(
        "services.*.grant",
        Choice(&["authorization_code", "client_credentials"]),
        "Users who have consented, or the client itself.",
    ),
    key("callers[].user", Text, "Whom the rule is for; all that it names must hold."),
    key("callers[].uid", Number(0, 4_294_967_294), "By number, where names can't be looked up."),
    key("callers[].group", Text, "One of the caller's groups."),
    key("callers[].gid", Number(0, 4_294_967_294), "By number."),
    key("callers[].systemd_unit", Text, "The system's service or scope that the caller runs in."),
    key(
        "callers[].services",
        Texts,
        "\"S\": default scopes and all roles; \"S:R\": role R only; \"*\": all.",
    ),
    key("callers[].users", Texts, "For whom; * matches any run of characters."),
    key("callers[].run_pass", Choice(&["none", "required"]), "Must be said wherever users is."),
    key("run_passes.issuer", Text, "Who signs run passes: `iss`, byte for byte."),
    key("run_passes.audience", Text, "What `aud` of run passes must be."),
    key(
        "run_passes.jwks_file",
        Text,
        "The file with its public keys (RFC 7517), read again when it changes.",
    ),
    key("run_passes.jwks_url", Text, "Or the address that answers with them."),
    key(
        "run_passes.max_lifetime",
        Duration,
        "A longer pass is refused; ended runs are remembered this long.",
    ),
    key("refresh.ahead", Percent, "The share of a token's life after which it is refreshed."),
    key("refresh.floor", Duration, "At least this long before its end."),
    key("refresh.ceiling", Duration, "At most this long before its end."),
    key("refresh.lease", Duration, "How long one process may hold a grant's refresh."),
    key("refresh.idle_after", Duration, "A token nobody asked for in this long is not refreshed ahead."),
    key("refresh.keep_alive", OrNever, "A grant is used at least this often, so that it does not lapse."),
    key("refresh.min_ttl", Duration, "No token with less left is handed out unless asked."),
    key("log.format", Choice(&["json", "text"]), "Lines for machines, or for people."),
    key("log.level", Choice(&["error", "warn", "info", "debug", "trace"]), "The least that is said."),
    key(
        "limits.requests_per_second",
        Number(1, 1_000_000),
        "Requests of one uid a second, and so many at once; more are answered 429.",
    ),
    key("limits.waiting_requests", Number(1, 100_000), "Requests of one uid that wait at the same time."),
    key("audit.file", Text, "Where what was done is recorded, a JSON line each; without it, nowhere."),
    key("audit.key_file", Text, "The key of its hashes; by default one is made beside the database."),
    key("audit.vends", Choice(&["all", "first"]), "Each token handed out, or once per token and caller."),
    key(
        "audit.on_failure",
        Choice(&["continue", "refuse"]),
        "What becomes of tokens whose line can't be written.",
    ),
    key("limits.event_streams", Number(0, 100_000), "Event streams of one uid; more are answered 429."),
    key("notify.warn_before", Duration, "How long before a grant ends by itself that is said."),
    key("notify.url", Text, "Where it is posted that a grant has ended, or will."),
    key("notify.secret_file", Text, "The key that signs what is posted (HMAC-SHA-256)."),
    key("connect.listen", Text, "Address and port of the page where users connect."),
    key("connect.public_url", Text, "The origin that browsers see it at."),
    key("connect.return_to", Texts, "Origins that ?return_to may name."),
    key("connect.certificate_file", Text, "Its certificate, PEM; read again when it changes."),
    key("connect.private_key_file", Text, "The certificate's key, PEM."),
    key("services.*.acr_values", Text, "How a user must have signed in to connect."),
    key("services.*.max_age", Duration, "How long ago a user may have signed in to connect."),
    key("services.*.password_grant", Flag, "RFC 9700: do not; only for a legacy service user."),
];

/// The JSON Schema of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut root = object();
    for key in KEYS {
        let mut place = &mut root;
        let mut parts = key.path.split('.').peekable();
        while let Some(part) = parts.next() {
            let leaf = parts.peek().is_none();
            place = match (part, part.strip_suffix("[]"), leaf) {
                ("*", ..) => child(place, "additionalProperties", object),
                (_, Some(list), _) => {
                    let list = property(place, list, || json!({ "type": "array", "items": object() }));
                    child(list, "items", object)
                }
                (_, None, true) => property(place, part, || describe(key)),
                (_, None, false) => property(place, part, object),
            };
        }
    }
    if let Some(root) = root.as_object_mut() {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("bursar's configuration"));
    }
    root
}

fn object() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

fn property<'a>(of: &'a mut Value, name: &str, make: impl FnOnce() -> Value) -> &'a mut Value {
    child(child(of, "properties", || json!({})), name, make)
}

/// The member `name` of an object, made if it is not there or only says `false`.
fn child<'a>(of: &'a mut Value, name: &str, make: impl FnOnce() -> Value) -> &'a mut Value {
    if !of.is_object() {
        *of = Value::Object(Map::new());
    }
    match of {
        Value::Object(members) => {
            let member = members.entry(name).or_insert(Value::Bool(false));
            if member.is_boolean() {
                *member = make();
            }
            member
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            other
        }
    }
}

fn describe(key: &Key) -> Value {
    let mut described = match key.kind {
        Text => json!({ "type": "string", "minLength": 1 }),
        Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Duration => json!({ "type": "string", "examples": ["30s", "5m", "1h"] }),
        OrNever => json!({ "type": "string", "examples": ["5m", "3d", "never"] }),
        Percent => json!({ "type": "string", "pattern": "^[0-9]+ *%$" }),
        Flag => json!({ "type": "boolean" }),
        Choice(words) => json!({ "enum": words }),
        Choices(words) => json!({ "type": "array", "items": { "enum": words }, "minItems": 1 }),
    };
    if let Some(described) = described.as_object_mut() {
        described.insert("description".to_owned(), json!(key.about));
    }
    described
}
