use super::*;

fn snowflake_page(text: &str) -> String {
    let settings = settings(text);
    snowflake::page(&Trust::of(&settings, "snowflake", Kind::Snowflake).unwrap())
}

#[test]
fn snowflake_gets_one_statement_with_this_services_values() {
    let page = snowflake_page(BASE);
    let statement = "
    create security integration bursar_production
      type = external_oauth
      enabled = true
      external_oauth_type = okta
      external_oauth_issuer = 'https://company.okta.com/oauth2/aus1'
      external_oauth_jws_keys_url = 'https://company.okta.com/oauth2/aus1/v1/keys'
      external_oauth_audience_list = ('https://abc.snowflakecomputing.com')
      external_oauth_token_user_mapping_claim = 'sub'
      external_oauth_snowflake_user_mapping_attribute = 'login_name'
      external_oauth_allowed_roles_list = ('ANALYST', 'PUBLIC');

";
    assert!(page.contains(statement), "{page}");
    assert_says(
        &page,
        &[
            "show grants of role \"ANALYST\";",
            "alter user \"USER\" set login_name = 'alice@example.com';",
            "set network_policy = \"POLICY\";",
            "bursar token --service snowflake --user alice@example.com --role ANALYST",
            "select system$verify_external_oauth_token('TOKEN');",
            "select system$get_login_failure_details('UUID');",
            "desc security integration bursar_production;",
            "What this can't know",
        ],
    );
    assert_silent(&page, &["PROBLEM", "role \"PUBLIC\"", "any_role_mode", "created as"]);
}

#[test]
fn names_with_quotes_backslashes_and_small_letters_arrive_as_they_are() {
    let text = with("roles = [\"PUBLIC\", \"ANALYST\"]", "roles = [\"o'brien\", \"DATA_2$\"]")
        .replace("https://abc.snowflakecomputing.com", "it's\\\\here\\n--")
        .replace("kind =", "user_claim = \"the 'user'\"\nkind =");
    let page = snowflake_page(&text);
    for expected in [
        "('it''s\\\\here\\u000a--')\n",
        "mapping_claim = 'the ''user'''\n",
        "allowed_roles_list = ('DATA_2$', 'PUBLIC', 'o''brien');\n",
        "show grants of role \"o'brien\";\n",
    ] {
        assert!(page.contains(expected), "{expected:?} is not in {page}");
    }
    assert_says(
        &page,
        &["o'brien is not what Snowflake makes", "created as \"o'brien\"", "is called O'BRIEN"],
    );
    assert_silent(&page, &["DATA_2$ is not"]);
}

/// Such a name is no scope, so a configuration can't have it yet; a role that a scope stands for by other means could.
#[test]
fn a_role_with_spaces_or_quotes_is_quoted_as_well() {
    let mut settings = settings(BASE);
    settings.services[0].scopes = Scope::from_wire("session:role:say\u{a0}\"hi\" session:role:data\\team");
    let page = snowflake::page(&Trust::of(&settings, "snowflake", Kind::Snowflake).unwrap());
    for expected in
        ["show grants of role \"say\u{a0}\"\"hi\"\"\";\n", "'data\\\\team'", "role \"data\\team\";\n"]
    {
        assert!(page.contains(expected), "{expected:?} is not in {page}");
    }
}

#[test]
fn any_role_is_enabled_only_where_it_is_asked_for() {
    let page = snowflake_page(&with("\"session:role:PUBLIC\"", "\"session:role-any\""));
    assert_says(
        &page,
        &[
            "external_oauth_any_role_mode = enable;",
            "session:role-any is among the scopes",
            "set external_oauth_any_role_mode = enable_for_privilege;",
            "grant use_any_role on integration bursar_production to role \"ROLE\";",
        ],
    );
    assert_silent(&page, &["allowed_roles_list"]);
}

#[test]
fn roles_that_no_token_gets_are_problems() {
    let page = snowflake_page(&with("\"ANALYST\"", "\"ANALYST\", \"ACCOUNTADMIN\""));
    assert_says(
        &page,
        &["('ANALYST', 'PUBLIC');", "PROBLEM: ACCOUNTADMIN is on Snowflake's list of blocked"],
    );
    let none =
        with("scopes = [\"session:role:PUBLIC\"]\nroles = [\"PUBLIC\", \"ANALYST\"]", "scopes = [\"x\"]");
    assert_says(
        &snowflake_page(&none),
        &["PROBLEM: no scope of this service is session:role:ROLE", "say nothing to Snowflake: x."],
    );
}

#[test]
fn the_client_itself_is_a_user_of_snowflakes() {
    let page = snowflake_page(&with("kind =", "grant = \"client_credentials\"\nkind ="));
    assert_says(
        &page,
        &["alter user \"SERVICE_USER\" set login_name = '0oa1';", "bursar token --service snowflake --role"],
    );
    assert_silent(&page, &["alice@"]);
}

#[test]
fn another_providers_tokens_are_read_as_it_writes_them() {
    let okta = "okta_domain = \"company.okta.com\"\nauthorization_server_id = \"aus1\"";
    let other = with(okta, "issuer = \"https://id.example.com\"");
    assert_says(
        &snowflake_page(&other),
        &[
            "`jwks_uri` in https://id.example.com/.well-known/openid-configuration",
            "external_oauth_type = custom",
            "external_oauth_jws_keys_url = 'PUT THE JWKS URL HERE'",
            "external_oauth_scope_mapping_attribute = 'scope' external_oauth_allowed_roles_list = ('ANALYST', 'PUBLIC');",
            "once Snowflake Support has enabled",
            "alter security integration bursar_production set external_oauth_scope_delimiter = ' ';",
        ],
    );
    let endpoints = "issuer = \"https://id.example.com\"\ntoken_endpoint = \"https://id.example.com/t\"\n\
                     jwks_uri = \"https://id.example.com/k\"";
    assert_says(&snowflake_page(&with(okta, endpoints)), &["keys_url = 'https://id.example.com/k'"]);
    let email = with("kind =", "user_claim = \"email\"\nkind =");
    assert_says(&snowflake_page(&email), &["mapping_attribute = 'email_address'", "set email ="]);
}

#[test]
fn an_integration_that_others_share_has_their_audiences_and_roles_as_well() {
    let page = snowflake_page(&and(r#"
[services.reports]
authorization_server = "production"
audience = "reports"
roles = ["REPORTER"]
user_claim = "email"
kind = "snowflake"
[services.lake]
authorization_server = "production"
audience = "lake"
kind = "databricks"
"#));
    assert_says(
        &page,
        &[
            "Tokens of [services.reports] come from the same issuer",
            "PROBLEM: services.snowflake.user_claim is \"sub\", services.reports.user_claim is \"email\"",
            "external_oauth_audience_list = ('https://abc.snowflakecomputing.com', 'reports')",
            "external_oauth_allowed_roles_list = ('ANALYST', 'PUBLIC', 'REPORTER');",
            "--user alice@example.com --role ANALYST",
        ],
    );
    assert_silent(&page, &["'lake'"]);
}

#[test]
fn public_is_snowflakes_public_in_any_case() {
    let page = snowflake_page(&with("roles = [\"PUBLIC\", \"ANALYST\"]", "roles = [\"public\"]"));
    assert_says(&page, &["allowed_roles_list = ('PUBLIC');", "--role public"]);
    assert_silent(&page, &["created as", "show grants of role"]);
}
