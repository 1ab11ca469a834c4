//! The services, and how each stands for whoever is signed in. Nobody sees anything of anybody else.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use nix::unistd::{Uid, User};

use crate::clock::Timestamp;
use crate::connect::date::Date;
use crate::connect::encode;
use crate::connect::failure::Trouble;
use crate::connect::focus::Focus;
use crate::connect::form::Fields;
use crate::connect::page::{Card, Fact, List, Role, SignIn, State};
use crate::connect::visit::{Visit, render};
use crate::model::{
    Coverage, EndReason, Expiry, Grant, GrantId, GrantKey, GrantState, Kind, LastUse, RoleName, Scope,
    Service,
};

pub(super) async fn show(visit: &mut Visit<'_>, query: &str) -> Result<Response<Full<Bytes>>, Trouble> {
    let terms = std::sync::Arc::clone(&visit.terms);
    let focus = Focus::of(&Fields::parse(query.as_bytes()), &terms);
    let mut cards = Vec::new();
    for service in &terms.services {
        let seen = match visit.user(service) {
            None => Seen::Nobody,
            Some(user) => {
                let key = GrantKey { service: service.name.clone(), user };
                let grant = visit.connect.store.grant(&GrantId::current(key)).await?;
                match grant {
                    Some(grant) => Seen::Grant(Box::new(look(visit, grant).await?)),
                    None => Seen::Nothing,
                }
            }
        };
        let server = terms.servers.get(&service.authorization_server);
        let server = server.map(|place| place.label.clone()).unwrap_or_default();
        cards.push(card(service, server, &seen, &focus));
    }
    // What a link has led here for comes first.
    cards.sort_by_key(|card| !card.wanted);
    let page = List {
        frame: visit.frame("Your connections"),
        back: focus.back(None),
        sign_ins: sign_ins(visit),
        cards,
        focus,
    };
    Ok(render(StatusCode::OK, &page))
}

/// Where nobody is known yet, one way for each realm and each claim that its services know their users by.
fn sign_ins(visit: &Visit<'_>) -> Vec<SignIn> {
    let mut offered: Vec<(&str, &str)> = Vec::new();
    let mut ways: Vec<SignIn> = Vec::new();
    for service in &visit.terms.services {
        let Some(place) = visit.terms.servers.get(&service.authorization_server) else { continue };
        let way = (place.realm.as_str(), service.named_by());
        if visit.user(service).is_some() || offered.contains(&way) {
            continue;
        }
        offered.push(way);
        // Of two that look alike the later ones say what for.
        let alike = ways.iter().any(|known| known.label == place.label);
        let label = if alike { format!("{} for {}", place.label, service.name) } else { place.label.clone() };
        ways.push(SignIn { action: format!("/sign-in/{}", encode(service.name.as_str())), label });
    }
    ways
}

/// What there is of a service for whoever asks.
enum Seen {
    /// It is not known who asks.
    Nobody,
    /// No grant.
    Nothing,
    Grant(Box<Known>),
}

/// A grant, and what is known of it besides.
struct Known {
    grant: Grant,
    /// The roles that it covers, as far as that is known.
    roles: Vec<RoleName>,
    /// When one of its tokens was handed out last, and to whom.
    used: Option<(Timestamp, String)>,
}

async fn look(visit: &Visit<'_>, grant: Grant) -> Result<Known, Trouble> {
    let connect = visit.connect;
    let had = connect.store.roles_had(std::slice::from_ref(&grant.key)).await?;
    let coverage = connect.engine.coverage(&grant, had.iter().map(|(_, role)| role));
    let granted = coverage.into_iter().filter(|(_, coverage)| *coverage == Coverage::Granted);
    let roles = granted.map(|(role, _)| role).collect();
    let used = match connect.uses.last_use(&grant.key).await {
        // A name may have to be asked for elsewhere.
        Some(used) => tokio::task::spawn_blocking(move || (used.at, user_of(&used))).await.ok(),
        None => None,
    };
    Ok(Known { grant, roles, used })
}

/// Who that was, as the workers' machine calls it.
fn user_of(used: &LastUse) -> String {
    let account = || {
        let user = User::from_uid(Uid::from_raw(used.uid)).ok().flatten();
        user.map_or_else(|| used.uid.to_string(), |user| user.name)
    };
    let user = match &used.unit {
        Some(unit) => unit.clone(),
        None => format!("account {} on the workers' machine", account()),
    };
    match &used.run {
        Some(run) => format!("run {run} ({user})"),
        None => user,
    }
}

fn card(service: &Service, server: String, seen: &Seen, focus: &Focus) -> Card {
    let name = service.name.as_str();
    let wanted = focus.service.as_deref() == Some(name);
    let (state, why) = state(seen);
    let encoded = encode(name);
    Card {
        anchor: format!("service-{encoded}"),
        name: name.to_owned(),
        kind: kind(service.kind),
        server,
        state,
        wanted,
        why,
        facts: if let Seen::Grant(known) = seen { facts(known) } else { Vec::new() },
        roles: roles(service, seen, wanted.then_some(focus)),
        action: format!("/connect/{encoded}"),
        disconnect: (state == State::Connected).then(|| format!("/disconnect/{encoded}")),
    }
}

fn state(seen: &Seen) -> (State, Option<&'static str>) {
    match seen {
        Seen::Nobody => (State::Unknown, None),
        Seen::Nothing => (State::NotConnected, None),
        Seen::Grant(known) => match known.grant.state {
            GrantState::Active => (State::Connected, None),
            GrantState::Ended { reason, .. } => (State::NeedsYou, why(reason)),
        },
    }
}

fn why(reason: EndReason) -> Option<&'static str> {
    match reason {
        EndReason::NeverConnected => None,
        EndReason::Expired => Some("Your consent has run out. Reconnect, and your workflows go on."),
        EndReason::Revoked => Some(
            "The connection was ended: here, by an administrator, or since your sign-in changed. Reconnect if your \
             workflows should go on.",
        ),
        EndReason::RoleNotGranted => {
            Some("A role that your workflows need was not granted. Reconnect with that role.")
        }
        EndReason::Lost => Some(
            "The connection was lost on the way to the sign-in server. It is not your fault: reconnect, and your \
             workflows go on.",
        ),
    }
}

fn facts(known: &Known) -> Vec<Fact> {
    let grant = &known.grant;
    let at = |name, moment: Timestamp| Fact { name, text: String::new(), date: Some(Date::of(moment)) };
    let mut facts = Vec::new();
    match grant.state {
        GrantState::Active => facts.push(at("Connected since", grant.created_at)),
        GrantState::Ended { since, .. } => facts.push(at("Ended", since)),
    }
    if grant.state == GrantState::Active {
        match grant.expiry {
            Expiry::At(end) => facts.push(at("Your consent ends", end)),
            Expiry::Never => facts.push(Fact {
                name: "Your consent ends",
                text: "When you or an administrator end it".to_owned(),
                date: None,
            }),
            Expiry::Unknown => {}
        }
    }
    if !known.roles.is_empty() {
        let roles: Vec<&str> = known.roles.iter().map(RoleName::as_str).collect();
        facts.push(Fact { name: "Roles", text: roles.join(", "), date: None });
    }
    match &known.used {
        Some((moment, user)) => {
            facts.push(at("Last used", *moment));
            facts.push(Fact { name: "Last used by", text: user.clone(), date: None });
        }
        None => facts.push(Fact { name: "Last used", text: "Not yet".to_owned(), date: None }),
    }
    facts
}

/// Chosen are those that a link names, those that the grant covers, and those that the service asks for anyway: who connects
/// again loses none by not looking.
fn roles(service: &Service, seen: &Seen, focus: Option<&Focus>) -> Vec<Role> {
    let named = focus.map(|focus| focus.roles.as_slice()).unwrap_or_default();
    let granted = if let Seen::Grant(known) = seen { known.roles.as_slice() } else { &[] };
    let role = |(role, scope): (&RoleName, &Scope)| {
        let by_default = scope.without(&service.scopes).is_empty();
        let chosen = by_default || granted.contains(role) || named.iter().any(|name| name == role.as_str());
        Role { name: role.as_str().to_owned(), chosen }
    };
    service.roles.iter().map(role).collect()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Snowflake => "Snowflake",
        Kind::Databricks => "Databricks",
        Kind::Netsuite => "NetSuite",
        Kind::Generic => "Service",
    }
}
