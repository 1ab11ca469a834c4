use super::*;

fn okta_page(text: &str) -> String {
    okta::page(&settings(text), None).unwrap()
}

#[test]
fn okta_is_told_in_the_order_of_its_console() {
    let page = okta_page(BASE);
    assert_says(
        &page,
        &[
            "1. The app integration with client id 0oa1, at company.okta.com",
            "OIDC - OpenID Connect",
            "Web Application",
            "Grant type Authorization Code Refresh Token Device Authorization, if",
            "Sign-in redirect URIs https://bursar.example.com/callback/production \
             http://127.0.0.1:8976/callback/production Sign-out",
            "Client authentication Client secret;",
            "Use persistent token or Rotate token after every use, with a grace period of 60 seconds",
            "authorization_servers.production.refresh_token_leeway is 30s. With rotation it must be the same",
            "private_key_jwt",
            "2. The authorization server production",
            "Audience https://abc.snowflakecomputing.com Issuer (Settings) https://company.okta.com/oauth2/aus1",
            "Scopes > Add Scope",
            "session:role:ANALYST session:role:PUBLIC User consent",
            "Access Policies > Add Policy",
            "The following clients: the app with client id 0oa1",
            "Grant type is Authorization Code Device Authorization",
            "Scopes requested session:role:ANALYST session:role:PUBLIC OIDC default scopes",
            "at least every 3d (refresh.keep_alive)",
            "3. All of company.okta.com",
            "Security > Networks",
            "Client-based rate limiting",
            "at least 600 a minute for 0oa1 (600 for production)",
            "What this can't know",
        ],
    );
    assert_says(
        &page,
        &["Client Credentials stays off", "Resource Owner Password stays off: it gives away passwords"],
    );
    assert_silent(&page, &["PROBLEM", "WARNING", "Client Credentials\n", "no [connect]"]);
}

#[test]
fn without_a_page_only_a_terminal_is_sent_back_to() {
    let page = okta_page(&with("[connect]\npublic_url = \"https://bursar.example.com\"\n", ""));
    assert_says(
        &page,
        &[
            "Sign-in redirect URIs http://127.0.0.1:8976/callback/production Sign-out",
            "This configuration has no [connect]",
        ],
    );
}

#[test]
fn servers_of_one_client_share_its_app_integration_and_nothing_else() {
    let text = and(r#"
[authorization_servers."the lake's"]
okta_domain = "company.okta.com"
authorization_server_id = "aus2"
client_id = "0oa1"
client_secret_file = "/nosuch/secret"
[services.lake]
authorization_server = "the lake's"
audience = "databricks"
scopes = ["lake"]
[authorization_servers.test]
okta_domain = "company-test.okta.com"
authorization_server_id = "aus3"
client_id = "0oa9"
client_secret_file = "/nosuch/secret"
[services.test]
authorization_server = "test"
audience = "test"
"#);
    let page = okta_page(&text);
    assert_says(
        &page,
        &[
            "1. The app integration with client id 0oa9, at company-test.okta.com",
            "2. The authorization server test",
            "Scopes: none to add",
            "3. The app integration with client id 0oa1, at company.okta.com",
            "It serves [authorization_servers.production], [authorization_servers.the lake's].",
            "https://bursar.example.com/callback/production https://bursar.example.com/callback/the%20lake's",
            "4. The authorization server production",
            "Audience https://abc.snowflakecomputing.com Issuer",
            "5. The authorization server the lake's",
            "Audience databricks Issuer (Settings) https://company.okta.com/oauth2/aus2",
            "letter by letter: lake User consent",
            "6. All of company-test.okta.com, company.okta.com",
            "at least 1200 a minute for 0oa1 (600 for production, 600 for the lake's)",
        ],
    );
    assert_silent(&page, &["PROBLEM"]);
    let one = okta::page(&settings(&text), Some("the lake's")).unwrap();
    assert_says(&one, &["1. The app integration with client id 0oa1", "callback/production", "2. The auth"]);
    assert_silent(&one, &["The authorization server production", "session:role", "0oa9"]);
    let unknown = okta::page(&settings(&text), Some("staging")).unwrap_err();
    assert_eq!(unknown, "there is no [authorization_servers.staging]; there is production, test, the lake's");
}

#[test]
fn two_audiences_of_one_server_are_a_problem() {
    let page = okta_page(&and("[services.lake]\nauthorization_server = \"production\"\naudience = \"lake\""));
    assert_says(
        &page,
        &[
            "PROBLEM: one authorization server has one audience",
            "https://abc.snowflakecomputing.com for snowflake, lake for lake",
            "Make one authorization server in Okta and one [authorization_servers.*] for each",
        ],
    );
}

#[test]
fn a_password_is_asked_for_only_where_it_is_configured_and_never_without_the_warning() {
    let page = okta_page(&with("kind = \"snowflake\"", "kind = \"snowflake\"\npassword_grant = true"));
    assert_says(
        &page,
        &[
            "Resource Owner Password (see the warning)",
            "WARNING: Resource Owner Password is asked for by password_grant = true of snowflake. RFC 9700 (section 2.4)",
            "MUST NOT",
            "Grant type is Authorization Code Device Authorization, if the app has it Resource Owner Password (see",
        ],
    );
    assert_silent(&page, &["Resource Owner Password stays off"]);
}

#[test]
fn client_credentials_have_a_rule_of_their_own() {
    let reporting = "[services.reporting]\nauthorization_server = \"production\"\ngrant = \"client_credentials\"\n\
                     audience = \"https://abc.snowflakecomputing.com\"\nscopes = [\"reports\"]";
    let page = okta_page(&and(reporting));
    assert_says(
        &page,
        &[
            "Client Credentials Sign-in redirect URIs",
            "Client Credentials is for services without users: reporting.",
            "Add Rule, for users:",
            "Scopes requested session:role:ANALYST session:role:PUBLIC OIDC",
            "Add Rule, for the client itself:",
            "Grant type is Client Credentials User is No user Scopes requested reports Access",
        ],
    );
    let alone = okta_page(&with("kind = \"snowflake\"", "grant = \"client_credentials\""));
    assert_says(
        &alone,
        &["Sign-in method API Services Grant type Client Credentials", "for the client itself"],
    );
    assert_silent(
        &alone,
        &["redirect URIs ", "for users", "Web Application", "Refresh Token", "persistent token"],
    );
}

#[test]
fn a_key_that_can_not_be_read_here_is_still_a_key() {
    let page =
        okta_page(&with("client_secret_file = \"/nosuch/secret\"", "private_key_file = \"/no such.pem\""));
    assert_says(
        &page,
        &[
            "Client authentication Public key / Private key;",
            "'/no such.pem' can't be read here.",
            "as a JWK: run `bursar setup okta --server production` where the key is",
        ],
    );
    assert_silent(&page, &["Better than a secret", "client_secret_file"]);
}

#[test]
fn of_a_key_that_can_be_read_the_public_half_is_printed_as_okta_wants_it() {
    let mut settings = settings(BASE);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&key).unwrap();
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    crate::dev::write_private(&path, &pem).unwrap();
    let pair = crate::authorization_server::signing_key::SigningKey::from_file(&path, None).unwrap();
    let server = settings.servers.get_mut("production").unwrap();
    server.authentication = crate::authorization_server::client_authentication::Method::PrivateKeyJwt(pair);
    server.authentication_file = Some(path);
    let page = okta::page(&settings, None).unwrap();
    let line = page.lines().find(|line| line.starts_with("    {")).unwrap();
    let jwk: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
    let members: Vec<&str> = jwk.keys().map(String::as_str).collect();
    assert_eq!(members, ["e", "kty", "n", "use"], "and nothing of the private half");
    assert_silent(&page, &["can't be read", "Better than a secret"]);
}

#[test]
fn one_client_that_proves_itself_in_two_ways_is_a_problem() {
    let page = okta_page(&and("[authorization_servers.other]\nokta_domain = \"company.okta.com\"\n\
         authorization_server_id = \"aus2\"\nclient_id = \"0oa1\"\nprivate_key_file = \"/nosuch.pem\"\n\
         [services.other]\nauthorization_server = \"other\"\naudience = \"other\""));
    assert_says(&page, &["PROBLEM: an app integration proves who it is in one way", "production, other"]);
}

#[test]
fn what_depends_on_other_keys_follows_them() {
    for (from, to, expected) in [
        ("[[callers]]", "[refresh]\nkeep_alive = \"never\"\n[[callers]]", "refresh.keep_alive is \"never\""),
        (
            "[[callers]]",
            "[refresh]\nkeep_alive = \"10d\"\n[[callers]]",
            "only every 10d (refresh.keep_alive)",
        ),
        (
            "client_id",
            "refresh_token_leeway = \"0s\"\nclient_id",
            "is 0s: right for rotation without a grace",
        ),
        (
            "client_id",
            "refresh_token_leeway = \"60s\"\nclient_id",
            "refresh_token_leeway is 60s. With rotation",
        ),
        ("client_id", "requests_per_minute = 90\nclient_id", "at least 90 a minute for 0oa1"),
        ("\"aus1\"", "\"default\"", "`default` may have no access policy"),
        ("kind =", "user_claim = \"email\"\nkind =", "Claims > Add Claim, for user_claim = \"email\""),
        (
            "kind =",
            "acr_values = \"urn:okta:loa:2fa:any\"\nmax_age = \"90m\"\nkind =",
            "asks for acr_values = \"urn:okta:loa:2fa:any\", max_age = \"90m\" when a user connects",
        ),
        ("kind = \"snowflake\"", "kind = \"netsuite\"", "PROBLEM: snowflake is of kind netsuite"),
    ] {
        assert_silent(&okta_page(BASE), &[expected]);
        assert_says(&okta_page(&with(from, to)), &[expected]);
    }
}

#[test]
fn what_is_not_okta_gets_the_values_without_the_menus() {
    let okta = "okta_domain = \"company.okta.com\"\nauthorization_server_id = \"aus1\"";
    let page = okta_page(&with(okta, "issuer = \"https://id.example.com\""));
    assert_says(
        &page,
        &[
            "1. The authorization server production, which is not Okta's",
            "Redirect URIs https://bursar.example.com/callback/production",
            "Grant types authorization_code refresh_token device_code",
            "Audience of access tokens https://abc.snowflakecomputing.com",
            "Scopes session:role:ANALYST session:role:PUBLIC openid offline_access",
        ],
    );
    assert_silent(&page, &["Applications >", "Security >", "All of"]);
    let organisation = okta_page(&with(okta, "issuer = \"https://company.okta.com\""));
    assert_says(&organisation, &["PROBLEM: https://company.okta.com is the organisation's own"]);
}
