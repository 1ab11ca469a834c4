//! The HTTP client that refresh tokens are presented with: what certainly did not leave is told from what may have arrived.

use std::sync::Arc;
use std::time::Duration;

use bursar::authorization_server::http::{Answer, HttpClient, Proxies, SendError};
use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use url::Url;

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn send(client: &HttpClient, url: &str, deadline: Duration) -> Result<Answer, SendError> {
    let request = hyper::Request::new(Full::new(Bytes::from_static(b"refresh_token=sentinel")));
    client.send(&Url::parse(url).unwrap(), request, deadline).await
}

async fn send_plain(port: u16) -> Result<Answer, SendError> {
    send(
        &HttpClient::new(None, Proxies::none()).unwrap(),
        &format!("http://127.0.0.1:{port}/v1/token"),
        Duration::from_millis(500),
    )
    .await
}

/// Reads the request's head and body.
async fn read_request(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"sentinel") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_refused_connection_sent_nothing() {
    let (listener, port) = listen().await;
    drop(listener);
    assert!(matches!(send_plain(port).await, Err(SendError::NotSent(_))));
}

#[tokio::test]
async fn an_answer_is_whole_or_the_request_is_in_doubt() {
    let too_large = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * 1024 * 1024);
    for (answer, whole) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
        ("", false),
        ("HTTP/1.1 200 OK\r\ncontent-len", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", false),
        ("nonsense\r\n\r\n", false),
        (too_large.as_str(), false),
    ] {
        let (listener, port) = listen().await;
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let (result, ()) = tokio::join!(send_plain(port), serve);
        match result {
            Ok(_) => assert!(whole, "{answer:.60}"),
            Err(SendError::InDoubt(_)) => assert!(!whole, "{answer:.60}"),
            Err(SendError::NotSent(why)) => panic!("{answer:.60}: {why}"),
        }
    }
}

#[tokio::test]
async fn a_status_is_an_answer_whatever_becomes_of_the_body() {
    for body in [
        "content-length: 20\r\n\r\nok",
        "content-length: 99999999\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nzz",
    ] {
        let (listener, port) = listen().await;
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(format!("HTTP/1.1 202 Accepted\r\n{body}").as_bytes()).await.unwrap();
            stream
        };
        let url = Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
        let client = HttpClient::new(None, Proxies::none()).unwrap();
        let request = hyper::Request::new(Full::new(Bytes::from_static(b"sentinel")));
        let (status, _open) = tokio::join!(client.status(&url, request, Duration::from_secs(10)), serve);
        assert_eq!(status.unwrap(), 202, "{body}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (listener, port) = listen().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let again = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(again.is_err(), "the secret went somewhere else");
    };
    let (result, ()) = tokio::join!(send_plain(port), serve);
    assert_eq!(result.unwrap().status, 307);
}

#[tokio::test]
async fn a_request_given_up_on_is_reset_and_not_sent_again() {
    let (listener, port) = listen().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let ended = stream.read_u8().await.unwrap_err();
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "reset, not closed");
        let again = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(again.is_err(), "no retry behind our back");
    };
    let (result, ()) = tokio::join!(send_plain(port), serve);
    assert!(matches!(result, Err(SendError::InDoubt(_))));
}

#[tokio::test]
async fn a_finished_connection_is_closed_in_order() {
    let (listener, port) = listen().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "closed, not reset");
    };
    let (result, ()) = tokio::join!(send_plain(port), serve);
    assert_eq!(result.unwrap().body, "ok");
}

/// A server that speaks TLS as `localhost`, and the file of its certificate.
pub(crate) struct TlsServer {
    pub(crate) port: u16,
    directory: tempfile::TempDir,
}

impl TlsServer {
    pub(crate) async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), made.cert.pem()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (listener, port) = listen().await;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut seen = Vec::new();
                while !seen.ends_with(b"sentinel") {
                    assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                let _closed = stream.shutdown().await;
            }
        });
        Self { port, directory }
    }

    fn trusting(&self, proxies: Proxies) -> HttpClient {
        HttpClient::new(Some(&self.directory.path().join("ca.pem")), proxies).unwrap()
    }

    async fn ask(&self, client: &HttpClient, host: &str) -> Result<Answer, SendError> {
        send(client, &format!("https://{host}:{}/v1/token", self.port), Duration::from_secs(5)).await
    }
}

#[tokio::test]
async fn tls_is_trusted_by_the_certificate_file_that_is_named_and_not_otherwise() {
    let server = TlsServer::start().await;
    let trusting = server.trusting(Proxies::none());
    assert_eq!(server.ask(&trusting, "localhost").await.unwrap().body, "ok");
    let wrong_name = server.ask(&trusting, "127.0.0.1").await;
    assert!(matches!(wrong_name, Err(SendError::NotSent(_))), "{wrong_name:?}");
    let untrusting = server.ask(&HttpClient::new(None, Proxies::none()).unwrap(), "localhost").await;
    assert!(matches!(untrusting, Err(SendError::NotSent(_))), "{untrusting:?}");
    let no_file = HttpClient::new(Some(server.directory.path()), Proxies::none());
    assert!(no_file.is_err(), "a file that is none is said at start");
}

/// An HTTP proxy that answers CONNECT with `status`, and goes on as a tunnel if that is 200. What it was asked.
async fn proxy(status: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (listener, port) = listen().await;
    let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let authority = head.split(' ').nth(1).unwrap().to_owned();
            heard.send(head).unwrap();
            client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            if status.starts_with("200") {
                let mut server = TcpStream::connect(authority).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (port, hears)
}

#[tokio::test]
async fn https_goes_through_the_proxy_that_the_environment_names_and_plain_http_does_not() {
    let server = TlsServer::start().await;
    let (port, mut heard) = proxy("200 Connection established").await;
    let proxies = Proxies::new(&format!("http://user:pass@127.0.0.1:{port}"), "").unwrap();
    let through = server.trusting(proxies.clone());
    assert_eq!(server.ask(&through, "localhost").await.unwrap().body, "ok");
    let head = heard.recv().await.unwrap();
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", server.port)), "{head}");
    assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{head}");
    assert!(!head.contains("sentinel"), "the proxy sees nothing of the request");
    assert!(!format!("{proxies:?}").contains("pass"));

    let excepted = Proxies::new(&format!("http://127.0.0.1:{port}"), "localhost,.example.com").unwrap();
    assert_eq!(server.ask(&server.trusting(excepted), "localhost").await.unwrap().body, "ok");
    let (plain, plain_port) = listen().await;
    let ask = send(&through, &format!("http://127.0.0.1:{plain_port}/"), Duration::from_secs(5)).await;
    drop(plain);
    assert!(ask.is_err(), "nobody answers there");
    assert!(heard.try_recv().is_err(), "neither of them came to the proxy");
}

#[tokio::test]
async fn a_proxy_that_refuses_let_nothing_through() {
    let server = TlsServer::start().await;
    let (port, _heard) = proxy("407 Proxy Authentication Required").await;
    let proxies = Proxies::new(&format!("127.0.0.1:{port}"), "").unwrap();
    let refused = server.ask(&server.trusting(proxies), "localhost").await;
    let Err(SendError::NotSent(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("the proxy answers 407"), "{why}");
    for bad in ["socks5://127.0.0.1:1", "https://127.0.0.1:1"] {
        assert!(Proxies::new(bad, "").is_err(), "{bad}");
    }
}
