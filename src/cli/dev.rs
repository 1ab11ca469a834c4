//! `bursar dev`

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Method as HttpMethod;
use serde_json::{Value, json};

use crate::app::{App, Ports, Running};
use crate::authorization_server::client::{Client, Config};
use crate::authorization_server::client_authentication::{ClientAuthentication, Method};
use crate::authorization_server::http::{HttpClient, Proxies};
use crate::authorization_server::{AuthorizationServer as _, Expected};
use crate::cli::arguments::DevArgs;
use crate::cli::{Exit, client, serve, terminal};
use crate::dev::authorization_server::{DevServer, KeyStock, Options, Rotation};
use crate::dev::{Place, SERVICES, USERS, describe, write_private};
use crate::hardening;
use crate::jwt::SigningAlgorithm;
use crate::lifecycle::{self, Signals};
use crate::logging;
use crate::metrics::Metrics;
use crate::model::Scope;
use crate::secret::Secret;
use crate::settings::{Log, Settings};
use crate::tasks::Tasks;

/// What `dev` stands on, until it ends.
struct World {
    server: DevServer,
    place: Place,
    /// Where users connect.
    page: SocketAddr,
    ports: Ports,
    server_tasks: Tasks,
    // Goes when dropped.
    _temporary: Option<tempfile::TempDir>,
}

pub(super) async fn dev(args: DevArgs) -> ExitCode {
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            terminal::err(&format!("bursar: {error}"));
            Exit::Failed.into()
        }
    }
}

async fn run(args: DevArgs) -> Result<ExitCode, String> {
    // Not confined: where its files go is for whoever calls it to say, and they go when it ends.
    let shortcomings = hardening::seclude();
    let level = if args.once { tracing::Level::WARN } else { tracing::Level::INFO };
    logging::start(Log { json: false, level })?;
    for problem in shortcomings {
        tracing::warn!("{problem}");
    }
    let mut signals = Signals::listen().map_err(|error| error.to_string())?;
    let world = tokio::select! {
        world = set_up(&args) => world?,
        () = signals.stop() => return Ok(ExitCode::SUCCESS),
    };
    if args.server_only {
        return server_only(&args, &world, signals).await;
    }
    let settings =
        Settings::load(&world.place.path("bursar.toml")).map_err(|problems| format!("{problems:?}"))?;
    let ports = world.ports.clone();
    let start = async { App::build(settings, ports, Vec::new()).await?.start().await };
    let running = match start.await {
        Ok(running) => running,
        Err(error) => return Ok(serve::failed(&error).into()),
    };
    let code = match connect_users(&world).await {
        Err(error) => {
            running.stop().await;
            return Err(error);
        }
        Ok(()) if args.once => {
            ready(
                &args,
                &describe(&world.server, &world.place, Some(running.metrics_address()), world.page),
            )?;
            let once = once(&world).await;
            running.stop().await;
            terminal::out(&format!("{:#}\n", once?));
            ExitCode::SUCCESS
        }
        Ok(()) => {
            announce(&args, &world, &running)?;
            lifecycle::run_until_signal(running, signals).await
        }
    };
    world.server_tasks.stop();
    world.server_tasks.stopped().await;
    Ok(code)
}

async fn set_up(args: &DevArgs) -> Result<World, String> {
    let (ports, server_tasks) = (Ports::real(), Tasks::new());
    let options = Options {
        listen: args.listen,
        token_lifetime: args.token_lifetime,
        rotation: Rotation::Rotating,
        leeway: Duration::from_secs(30),
        keys: KeyStock::default(),
    };
    let (clock, entropy) = (Arc::clone(&ports.clock), Arc::clone(&ports.entropy));
    let server = DevServer::start(options, clock, entropy, &server_tasks)
        .await
        .map_err(|error| format!("{}: {error}", args.listen))?;
    let (directory, temporary) = match &args.dir {
        Some(directory) => (directory.clone(), None),
        None => {
            let made = tempfile::Builder::new()
                .prefix("bursar-dev-")
                .tempdir()
                .map_err(|error| error.to_string())?;
            (made.path().to_owned(), Some(made))
        }
    };
    let place = Place::set_up(&directory, &server, &*ports.entropy)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let page = free_address().map_err(|error| error.to_string())?;
    place.open_page(page).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(World { server, place, page, ports, server_tasks, _temporary: temporary })
}

/// The page's own address is part of its configuration, so that it can't be left to whoever binds it.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// As if each user had clicked Authenticate once: what the code flow gives is imported as any other refresh token is.
async fn connect_users(world: &World) -> Result<(), String> {
    for service in SERVICES {
        for user in USERS {
            let token = consent(world, service.server, user, service.consent)?;
            let target = format!("/v1/grants/{}/{}", service.name, client::encode(user));
            let body = json!({ "refresh_token": token.expose() });
            let admin = world.place.path("admin.sock");
            let imported = client::ask(&admin, HttpMethod::PUT, &target, Some(body)).await;
            imported.map_err(|_said| format!("{user} could not be connected to {}", service.name))?;
        }
    }
    Ok(())
}

fn consent(world: &World, server: &str, user: &str, scopes: &[&str]) -> Result<Secret, String> {
    world
        .server
        .consent(server, user, scopes)
        .ok_or_else(|| format!("the development server does not know {user}"))
}

/// Alice's Snowflake token over the socket, verified once more by ourselves: its claims.
async fn once(world: &World) -> Result<Value, String> {
    let [snowflake, _databricks] = &SERVICES;
    let [alice, _bob] = USERS;
    let target = format!("/v1/token?service={}&user={}", snowflake.name, client::encode(alice));
    let answer = client::ask(&world.place.path("bursar.sock"), HttpMethod::GET, &target, None).await;
    let answer = answer.map_err(|_said| "no token".to_owned())?;
    let token =
        Secret::new(answer.get("access_token").and_then(Value::as_str).unwrap_or_default().to_owned());
    let settings =
        Settings::load(&world.place.path("bursar.toml")).map_err(|problems| format!("{problems:?}"))?;
    let service = settings.services.iter().find(|service| service.name.as_str() == snowflake.name);
    let service = service.ok_or("the configuration has lost its service")?;
    let config = Config {
        name: snowflake.name.to_owned(),
        issuer: world.server.issuer(snowflake.server),
        endpoints: None,
        algorithms: vec![SigningAlgorithm::Rs256],
        request_timeout: Duration::from_secs(5),
    };
    let secret = world.server.client_secret().clone();
    let authentication =
        ClientAuthentication::new(world.server.client_id().to_owned(), Method::SecretBasic(secret), None);
    let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
    let http = HttpClient::new(None, Proxies::none())?;
    let (clock, entropy) = (Arc::clone(&world.ports.clock), Arc::clone(&world.ports.entropy));
    let server = Client::new(config, http, authentication, clock, entropy, metrics)
        .map_err(|error| error.to_string())?;
    let user = crate::model::UserName::parse(alice);
    let scope: Scope = service.scope(None).unwrap_or_default();
    let expected = Expected {
        audience: &service.audience,
        user_claim: &service.user_claim,
        user: user.as_ref(),
        scope: &scope,
    };
    server
        .verify(&token, &expected, world.ports.clock.now().wall)
        .await
        .map_err(|error| error.to_string())?;
    let payload = token.expose().split('.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|error| error.to_string())?;
    serde_json::from_slice(&payload).map_err(|error| error.to_string())
}

async fn server_only(args: &DevArgs, world: &World, mut signals: Signals) -> Result<ExitCode, String> {
    let place = &world.place;
    let us = ourselves();
    let config = place.path("bursar.toml");
    let admin = place.path("admin.sock");
    let mut imports = String::new();
    for service in SERVICES {
        for user in USERS {
            let token = consent(world, service.server, user, service.consent)?;
            let file =
                place.write_refresh_token(service.name, user, &token).map_err(|error| error.to_string())?;
            imports.push_str(&format!(
                "  {us} grant import --admin-socket {} --service {} --user {user} --refresh-token-file {}\n",
                admin.display(),
                service.name,
                file.display()
            ));
        }
    }
    ready(args, &describe(&world.server, place, None, world.page))?;
    terminal::out(&format!(
        "The development authorization server runs at {issuer}\nfaults, settings and statistics: {control}\n\n\
         A sidecar beside it:\n  {us} serve --config {config}\nits users, once it runs:\n{imports}\n\
         Ctrl-C ends it.\n",
        issuer = world.server.issuer(DevServer::SNOWFLAKE),
        control = world.server.control(),
        config = config.display(),
    ));
    signals.stop().await;
    world.server_tasks.stop();
    world.server_tasks.stopped().await;
    Ok(ExitCode::SUCCESS)
}

fn announce(args: &DevArgs, world: &World, running: &Running) -> Result<(), String> {
    let us = ourselves();
    let (socket, admin) = (world.place.path("bursar.sock"), world.place.path("admin.sock"));
    let (socket, admin) = (socket.display(), admin.display());
    let [alice, bob] = USERS;
    ready(args, &describe(&world.server, &world.place, Some(running.metrics_address()), world.page))?;
    terminal::out(&format!(
        "bursar runs, with a development authorization server at {issuer}\n\
         {alice} and {bob} are connected to snowflake (roles PUBLIC, ANALYST) and databricks.\n\n\
         Where users connect (every password is `password`):\n  http://{page}/\n\n\
         A token as a worker gets it:\n  \
         curl --unix-socket {socket} 'http://bursar/v1/token?service=snowflake&user={alice}&role=ANALYST'\n  \
         curl --unix-socket {socket} -H 'Accept: text/plain' 'http://bursar/v1/token?service=databricks&user={bob}'\n  \
         {us} token --socket {socket} --service snowflake --user {alice}\n\n\
         As an administrator:\n  \
         {us} grant list --admin-socket {admin}\n  \
         {us} login --admin-socket {admin} --service snowflake --role ANALYST # as {alice}, password `password`\n  \
         {us} login --admin-socket {admin} --service snowflake --device\n  \
         {us} grant refresh --admin-socket {admin} --service snowflake --user {alice}\n  \
         curl http://{metrics}/metrics\n\n\
         What the authorization server saw, and how to make it fail:\n  \
         curl {control}/stats\n  \
         curl {control} # describes its faults and settings\n\n\
         Tokens live for {lifetime}. Ctrl-C ends it.\n",
        issuer = world.server.issuer(DevServer::SNOWFLAKE),
        page = world.page,
        metrics = running.metrics_address(),
        control = world.server.control(),
        lifetime = humantime::format_duration(args.token_lifetime),
    ));
    Ok(())
}

fn ready(args: &DevArgs, description: &Value) -> Result<(), String> {
    let Some(path) = &args.ready_file else { return Ok(()) };
    write_private(path, &format!("{description:#}\n")).map_err(|error| format!("{}: {error}", path.display()))
}

/// How this program is called again; `bursar` is not in the path of who just built it.
fn ourselves() -> String {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("bursar")).display().to_string()
}
