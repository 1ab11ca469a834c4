//! What a service would not take, as far as the configuration tells, and what must be said on its side.

use crate::check::Step;
use crate::model::{Kind, Service, sql_text};

/// Snowflake lets nobody be these by external OAuth, unless it is told to.
const PRIVILEGED: [&str; 4] = ["ACCOUNTADMIN", "ORGADMIN", "GLOBALORGADMIN", "SECURITYADMIN"];
const ROLE: &str = "session:role:";
const ANY_ROLE: &str = "session:role-any";

pub(super) fn look(service: &Service) -> Vec<Step> {
    match service.kind {
        Kind::Snowflake => snowflake(service),
        Kind::Databricks => vec![databricks(service)],
        Kind::Netsuite | Kind::Generic => Vec::new(),
    }
}

fn snowflake(service: &Service) -> Vec<Step> {
    let subject = format!("services.{}", service.name);
    let doubt = |message: String, remedy: String| Step::doubtful("service", subject.clone(), message, remedy);
    let (defaults, mut steps) = (service.scopes.to_string(), Vec::new());
    let all: Vec<String> = std::iter::once(&service.scopes)
        .chain(service.roles.values())
        .flat_map(|scope| scope.to_string().split(' ').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    if !defaults.contains(ROLE) && !defaults.contains(ANY_ROLE) {
        let message = "a token for the default scopes has no role: Snowflake refuses it".to_owned();
        let remedy = format!("put {ROLE}PUBLIC or another role's scope into {subject}.scopes");
        steps.push(if service.roles.is_empty() {
            Step::bad("service", subject.clone(), message, remedy)
        } else {
            doubt(message, format!("{remedy}, or have every caller name a role"))
        });
    }
    let roles: Vec<&str> = all.iter().filter_map(|scope| scope.strip_prefix(ROLE)).collect();
    if let Some(role) = roles.iter().find(|role| role.chars().any(char::is_lowercase) && **role != "public") {
        steps.push(doubt(
            format!("role {role}: Snowflake writes names in upper case unless they were made with quotes"),
            format!(
                "`show roles like {like}` in Snowflake shows how it is written: if {upper}, then {ROLE}{upper} here and in Okta, \
                 Security > API > the authorization server > Scopes",
                like = sql_text(role),
                upper = role.to_uppercase()
            ),
        ));
    }
    if let Some(role) = roles.iter().find(|role| PRIVILEGED.contains(role)) {
        steps.push(doubt(
            format!("role {role}: blocked by Snowflake for external OAuth"),
            "better another role; else in Snowflake: alter account set external_oauth_add_privileged_roles_to_blocked_list = \
             false"
                .to_owned(),
        ));
    }
    if all.iter().any(|scope| scope == ANY_ROLE) {
        steps.push(doubt(
            format!("{ANY_ROLE}: users switch to any role of theirs, where Snowflake allows that; it can't be seen from here"),
            "in Snowflake: alter security integration NAME set external_oauth_any_role_mode = 'ENABLE'".to_owned(),
        ));
    }
    if !service.audience.contains(".snowflakecomputing.") {
        steps.push(doubt(
            format!("the audience {:?} is no Snowflake account's URL", service.audience),
            format!(
                "right only if Snowflake was told: alter security integration NAME set external_oauth_audience_list = ({})",
                sql_text(&service.audience)
            ),
        ));
    }
    if steps.is_empty() {
        steps.push(Step::good(
            "service",
            subject,
            "is as Snowflake wants it, as far as the configuration tells",
        ));
    }
    steps
}

fn databricks(service: &Service) -> Step {
    let (subject, audience) = (format!("services.{}", service.name), &service.audience);
    let message = format!(
        "Databricks takes it where a federation policy names this issuer and the audience {audience:?}"
    );
    Step::good("service", subject, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::model::{RoleName, Scope, ServiceName, SpeaksFor};

    fn service(scopes: &str, roles: &[&str], audience: &str) -> Service {
        let role = |name: &&str| Some((RoleName::parse(name)?, Scope::from_wire(&format!("{ROLE}{name}"))));
        Service {
            name: ServiceName::parse("snowflake").unwrap(),
            speaks_for: SpeaksFor::Users,
            authorization_server: "production".into(),
            audience: audience.into(),
            scopes: Scope::from_wire(scopes),
            roles: roles.iter().filter_map(role).collect(),
            user_claim: "sub".into(),
            opaque: false,
            kind: Kind::Snowflake,
            acr_values: None,
            max_age: None,
            password_grant: false,
        }
    }

    #[test]
    fn what_snowflake_would_not_take_has_the_statement_that_mends_it() {
        const ACCOUNT: &str = "https://abc.snowflakecomputing.com";
        let public = "session:role:PUBLIC";
        for (service, verdict, expected) in [
            (service(public, &["ANALYST"], ACCOUNT), Verdict::Good, ""),
            (service("session:role:public", &[], ACCOUNT), Verdict::Good, ""),
            (
                service(public, &["analyst"], ACCOUNT),
                Verdict::Doubtful,
                "session:role:ANALYST here and in Okta",
            ),
            (service("", &[], ACCOUNT), Verdict::Bad, "session:role:PUBLIC"),
            (service("", &["ANALYST"], ACCOUNT), Verdict::Doubtful, "name a role"),
            (service(public, &["ACCOUNTADMIN"], ACCOUNT), Verdict::Doubtful, "alter account"),
            (service(ANY_ROLE, &[], ACCOUNT), Verdict::Doubtful, "external_oauth_any_role_mode = 'ENABLE'"),
            (
                service(public, &[], r"it's\"),
                Verdict::Doubtful,
                r"external_oauth_audience_list = ('it''s\\')",
            ),
            (service(public, &["o'b"], ACCOUNT), Verdict::Doubtful, "roles like 'o''b'"),
        ] {
            let steps = look(&service);
            let [step] = steps.as_slice() else { panic!("{steps:?}") };
            assert_eq!(step.verdict, verdict, "{step:?}");
            assert!(step.remedy.as_deref().unwrap_or_default().contains(expected), "{step:?}");
        }
    }
}
