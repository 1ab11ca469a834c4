//! The connect page with a certificate of its own.

use std::io;
use std::path::Path;
use std::time::Duration;

use bursar::authorization_server::http::{Answer, HttpClient, Proxies, SendError};
use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use crate::support::World;
use crate::support::sidecar::Sidecar;

/// A certificate for `localhost` with its key, in the place of any there was.
fn write_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    // The two change one after the other, as they do where they are renewed.
    for (name, text) in [("tls.key", made.signing_key.serialize_pem()), ("tls.crt", made.cert.pem())] {
        let file = directory.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
}

struct Site {
    sidecar: Sidecar,
    world: World,
    port: u16,
}

impl Site {
    async fn start() -> Self {
        let world = World::start().await;
        write_certificate(world.path());
        let here = |name: &str| world.path().join(name).display().to_string();
        let origin = world.open_page(&format!(
            "certificate_file = \"{}\"\nprivate_key_file = \"{}\"",
            here("tls.crt"),
            here("tls.key")
        ));
        let port = Url::parse(&origin).unwrap().port().unwrap();
        world.configure(
            &format!("public_url = \"{origin}\""),
            &format!("public_url = \"https://localhost:{port}\""),
        );
        Self { sidecar: world.sidecar().await, world, port }
    }

    /// The page, if it proves itself with the certificate that is in this file now.
    async fn get(&self, trusted: &Path) -> Result<Answer, SendError> {
        let client = HttpClient::new(Some(trusted), Proxies::none()).unwrap();
        let url = Url::parse(&format!("https://localhost:{}/", self.port)).unwrap();
        let mut request = hyper::Request::new(Full::new(Bytes::new()));
        *request.method_mut() = hyper::Method::GET;
        client.send(&url, request, Duration::from_secs(5)).await
    }

    fn certificate(&self) -> std::path::PathBuf {
        self.world.path().join("tls.crt")
    }
}

#[tokio::test]
async fn over_tls_cookies_belong_to_this_host_alone() {
    let site = Site::start().await;
    let page = site.get(&site.certificate()).await.unwrap();
    assert_eq!(page.status, 200);
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-bursar-session=") && cookie.ends_with("; Secure"), "{cookie}");
    assert_eq!(page.headers["strict-transport-security"], "max-age=31536000");
    site.world.finish(site.sidecar).await;
}

#[tokio::test]
async fn a_certificate_is_read_again_when_it_changes_and_kept_while_the_new_one_is_none() {
    let site = Site::start().await;
    let first = site.world.path().join("first.crt");
    std::fs::copy(site.certificate(), &first).unwrap();
    std::fs::write(site.certificate(), "not yet").unwrap();
    while !site.sidecar.read_log().contains("certificate in use stays") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(site.get(&first).await.unwrap().status, 200);
    write_certificate(site.world.path());
    while site.get(&site.certificate()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(site.get(&first).await.is_err());
    site.world.finish(site.sidecar).await;
}

#[tokio::test]
async fn who_dawdles_over_a_handshake_or_does_not_speak_tls_is_in_nobodys_way() {
    let site = Site::start().await;
    let connect = || TcpStream::connect(("127.0.0.1", site.port));
    let mut dawdling = Vec::new();
    for _ in 0..50 {
        dawdling.push(connect().await.unwrap());
    }
    let mut plain = connect().await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let ended: io::Result<usize> = plain.read_to_end(&mut said).await;
    assert!(ended.is_err() || !said.windows(4).any(|part| part == b"HTTP"), "nothing is said in clear");
    assert_eq!(site.get(&site.certificate()).await.unwrap().status, 200);
    drop(dawdling);
    site.world.finish(site.sidecar).await;
}
