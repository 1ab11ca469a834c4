//! The HTTP client that refresh tokens are presented with: what certainly did not leave is told from what may have arrived.

use std::sync::Arc;
use std::time::Duration;

use bursar::authorization_server::http::{Answer, HttpClient, SendError};
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
        &HttpClient::new(None).unwrap(),
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

#[tokio::test]
async fn tls_is_trusted_by_the_certificate_file_that_is_named_and_not_otherwise() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
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
    let server = tokio::spawn(async move {
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
    let url = |host: &str| format!("https://{host}:{port}/v1/token");
    let deadline = Duration::from_secs(5);
    let trusting = HttpClient::new(Some(&ca_file)).unwrap();
    assert_eq!(send(&trusting, &url("localhost"), deadline).await.unwrap().body, "ok");
    let wrong_name = send(&trusting, &url("127.0.0.1"), deadline).await;
    assert!(matches!(wrong_name, Err(SendError::NotSent(_))), "{wrong_name:?}");
    let untrusting = send(&HttpClient::new(None).unwrap(), &url("localhost"), deadline).await;
    assert!(matches!(untrusting, Err(SendError::NotSent(_))), "{untrusting:?}");
    assert!(HttpClient::new(Some(directory.path())).is_err(), "a file that is none is said at start");
    server.abort();
}
