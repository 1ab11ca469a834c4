use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::fuzz::LONGEST_COMPLAINT;
use crate::fuzz::jwt::{KEYS, NOW, signed};
use crate::run_pass::{Expectation, verify};
use crate::secret::Secret;

const ISSUER: &str = "https://workflows.example";
const AUDIENCE: &str = "bursar";

static EXPECTED: LazyLock<Expectation> = LazyLock::new(|| Expectation {
    issuer: ISSUER.to_owned(),
    audience: AUDIENCE.to_owned(),
    max_lifetime: Duration::from_hours(2),
});

/// A run pass as it comes; or, behind a `+`, a header, the line's end and a payload, which are then signed.
pub fn run_pass(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let parts = text.strip_prefix('+').and_then(|text| text.split_once('\n'));
    let pass = parts.map_or_else(|| text.to_owned(), |(header, payload)| signed(header, payload));
    match verify(&Secret::new(pass), &KEYS, &EXPECTED, Timestamp::from_secs(NOW)) {
        Ok(believed) => {
            // Nobody has signed any but those that were signed here.
            let (_, payload) = parts.unwrap();
            // By another reader: what was believed is what stands there, once.
            let claims: Value = serde_json::from_str(payload).unwrap();
            assert_eq!(claims["iss"], json!(ISSUER));
            let audience = &claims["aud"];
            let listed = audience.as_array().is_some_and(|all| all.contains(&json!(AUDIENCE)));
            assert!(audience == AUDIENCE || listed);
            assert_eq!(claims["jti"], json!(believed.run().as_str()));
            assert_eq!(claims["sub"], json!(believed.user().as_str()));
            let ends = believed.expires_at();
            assert!(ends > Timestamp::from_secs(NOW) && ends <= Timestamp::from_secs(NOW + 7200 + 60));
            assert!(claims["services"].is_array() || claims["services"].is_string());
            true
        }
        Err(why) => {
            assert!(why.to_string().len() <= LONGEST_COMPLAINT);
            false
        }
    }
}
