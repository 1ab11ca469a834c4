//! Where secrets may leave their type. That none of them leaves by a side door is looked for at the end of every test
//! that runs the real program (`World::finish`).

use std::path::Path;

/// The files that may expose a secret, and what for.
const ALLOWED: &[(&str, &str)] = &[
    ("src/secret.rs", "defines it"),
    ("src/store/seal.rs", "seals it, reads the key"),
    ("src/audit/chain.rs", "reads the key of the audit log"),
    ("src/authorization_server/client.rs", "presents a refresh token"),
    ("src/authorization_server/client/consents.rs", "presents a code"),
    ("src/consent/pending.rs", "sends state and nonce with the browser, writes them down to be sealed"),
    ("src/settings/notify.rs", "looks how long a key is"),
    ("src/jwt/id_token.rs", "compares the hash of an access token"),
    ("src/authorization_server/client_authentication.rs", "authenticates the client"),
    ("src/check/asking.rs", "authenticates the client, to see whether it is accepted"),
    ("src/notify/webhook.rs", "signs what is posted"),
    ("src/jwt.rs", "verifies a token"),
    ("src/cache.rs", "prepares the answer"),
    ("src/api/token.rs", "answers"),
    ("src/cli/key.rs", "prints a new key"),
    ("src/cli/client.rs", "shows a run pass"),
    ("src/admin/grants.rs", "looks whether it can be sent"),
    ("src/fuzz/client_authentication.rs", "compares, while fuzzing"),
    ("src/fuzz/configuration.rs", "writes a key, while fuzzing"),
    ("src/fuzz/token_response.rs", "compares, while fuzzing"),
];

#[test]
fn secrets_are_exposed_in_few_places() {
    let mut found = Vec::new();
    for file in crate::architecture::sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let (path, text) = (&file.0, &file.1);
        // The development server hands out made-up secrets, and tests compare them.
        let production = text.split("#[cfg(test)]").next().unwrap();
        if production.contains(".expose()")
            && !path.starts_with("src/dev")
            && !path.starts_with("src/cli/dev")
        {
            found.push(path.clone());
        }
    }
    found.retain(|path| !path.ends_with("/tests.rs"));
    let mut allowed: Vec<String> = ALLOWED.iter().map(|(path, _)| (*path).to_owned()).collect();
    allowed.sort();
    found.sort();
    let unexpected: Vec<_> = found.iter().filter(|path| !allowed.contains(path)).collect();
    assert!(unexpected.is_empty(), "{unexpected:?} expose a secret and are not listed");
}
