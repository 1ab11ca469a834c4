use super::*;

fn databricks_page(service: &str) -> String {
    let settings =
        settings(&and(&format!("[services.lake]\nauthorization_server = \"production\"\n{service}")));
    databricks::page(&Trust::of(&settings, "lake", Kind::Databricks).unwrap())
}

#[test]
fn databricks_gets_an_account_policy_and_is_shown_the_exchange() {
    let page = databricks_page("audience = \"it's databricks\"\nkind = \"databricks\"");
    assert_says(
        &page,
        &[
            "Account console > Security > Authentication > Federation policies > Create policy",
            "Issuer URL https://company.okta.com/oauth2/aus1 Audiences it's databricks Subject claim sub",
            "databricks account federation-policy create --json '{",
            r#""audiences": [ "it'\''s databricks" ], "issuer": "https://company.okta.com/oauth2/aus1", "subject_claim": "sub" } }'"#,
            "bursar token --service lake --user alice@example.com |",
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange",
            "--data-urlencode subject_token@-",
            "What this can't know",
        ],
    );
    assert_silent(
        &page,
        &["client_id", "service-principal", "services.lake.exchange", "[services.X.exchange]"],
    );
}

#[test]
fn the_client_itself_is_a_service_principal_of_databricks() {
    let page = databricks_page(
        "audience = \"lake\"\nkind = \"databricks\"\ngrant = \"client_credentials\"\nscopes = [\"all\"]",
    );
    assert_says(
        &page,
        &[
            "databricks account service-principal-federation-policy create SERVICE_PRINCIPAL_ID --json '{",
            "\"subject\": \"0oa1\"",
            "bursar token --service lake |",
            "-d client_id=APPLICATION_ID_OF_THE_PRINCIPAL",
        ],
    );
    assert_silent(&page, &["subject_claim", "alice@"]);
    let opaque = databricks_page("audience = \"lake\"\nkind = \"databricks\"\naccess_token = \"opaque\"");
    assert_says(&opaque, &["PROBLEM: access_token = \"opaque\": only a JWT can be exchanged."]);
}
