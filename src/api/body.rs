//! Bodies: read whole within limits, or done away with where nobody wants one.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::Response;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use zeroize::Zeroizing;

use crate::api::error::Problem;

const LARGEST: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for what nobody wants.
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(1);

/// The whole body; it may hold a secret.
///
/// # Errors
/// If it is too large, takes too long or breaks off.
pub async fn read(body: &mut Incoming) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let read = tokio::time::timeout(TIMEOUT, Limited::new(body, LARGEST).collect()).await;
    let read = read.map_err(|_| Problem::invalid_request("the body takes too long"))?;
    match read {
        Ok(body) => Ok(Zeroizing::new(body.to_bytes().to_vec())),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large()),
        Err(_) => Err(Problem::invalid_request("the body broke off")),
    }
}

/// What is left of a body would be taken for the next request: it is read and dropped, or the connection ends with this
/// answer.
pub async fn dispose<B>(body: &mut Incoming, answer: &mut Response<B>) {
    if body.is_end_stream() {
        return;
    }
    let rest = tokio::time::timeout(UNWANTED_TIMEOUT, Limited::new(body, LARGEST).collect()).await;
    if !matches!(rest, Ok(Ok(_))) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
