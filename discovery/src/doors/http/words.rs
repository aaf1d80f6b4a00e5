//! What a client is told whom the server hangs up on, before there is a request to answer.

/// To a client that was not admitted.
pub(super) const FULL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n",
    "content-type: text/plain\r\n\r\n",
    "the server's limit --max-http-connections is reached; try again\n"
);
/// To a client in the middle of a head whose place another one needs.
pub(super) const GAVE_WAY: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n",
    "content-type: text/plain\r\n\r\n",
    "this connection was idle for longest when the server's limit --max-http-connections was reached; try again\n"
);
/// To a client whose head did not come in time.
pub(super) const TOO_SLOW: &str = concat!(
    "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n",
    "the head of the request took too long\n"
);
/// To a client that hyper hangs up on without a word.
pub(super) const NO_HTTP: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n",
    "this is the HTTP door, and it speaks HTTP/1.1 only\n"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_answers_with_a_sentence() {
        for words in [FULL, GAVE_WAY, TOO_SLOW, NO_HTTP] {
            let (head, body) = words.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 ") && head.contains("connection: close") && body.ends_with('\n'));
        }
    }
}
