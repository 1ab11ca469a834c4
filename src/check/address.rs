//! The address that a server sees us from, for Okta's network zones: only the near end of it can be told.

use std::net::ToSocketAddrs as _;

use tokio::net::UdpSocket;
use url::Url;

use crate::authorization_server::http::Proxies;
use crate::check::Step;

pub(super) async fn look(subject: &str, issuer: &str, proxies: &Proxies) -> Option<Step> {
    let url = Url::parse(issuer).ok()?;
    let advice = "a server with network zones must let the address through that it sees: in Okta, Security > Networks, and \
                  the app integration's General tab, Network access";
    if let Some(proxy) = proxies.of_url(&url) {
        let message =
            format!("requests go through the proxy {proxy}; the server sees an address of that proxy's");
        return Some(Step::untold("address", subject, message).and_do(advice));
    }
    let message = match source(&url).await {
        Some(source) if source.is_loopback() => {
            let message = format!("requests leave from {source}, for the server is on this machine");
            return Some(Step::untold("address", subject, message));
        }
        Some(source) => {
            format!("requests leave from {source}; a NAT on the way may have the server see another address")
        }
        None => "no route to it could be found".to_owned(),
    };
    Some(Step::untold("address", subject, message).and_do(advice))
}

/// Connecting a UDP socket sends nothing: the kernel only chooses the way, and with it our end.
async fn source(url: &Url) -> Option<std::net::IpAddr> {
    let (host, port) = (url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?);
    let found = tokio::task::spawn_blocking(move || (host.as_str(), port).to_socket_addrs().ok()?.next());
    let address = found.await.ok().flatten()?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(address).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}
